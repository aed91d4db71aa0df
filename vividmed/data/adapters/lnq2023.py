"""LNQ2023: some of the enlarged mediastinal lymph nodes in chest CT."""

from collections.abc import Iterator
from pathlib import Path

from vividmed.data.adapters.base import Adapter, Case, ImageFile, LabelMap, files, register

_LABELS = {"mediastinal lymph node": 1}


@register
class LNQ2023(Adapter):
    """Not every node of the training scans was annotated: each annotated one is an instance, and none are absent."""

    name = "lnq2023"
    title = "LNQ2023"
    modalities = ("CT",)
    targets = tuple(_LABELS)
    licence = "CC BY 4.0 (not confirmed)"
    access = "registered"
    redistribute = "no"
    terms = "The challenge gives the scans to its participants; the licence must be confirmed before they are shared."
    homepage = "https://lnqproject.org/challenge"
    citation = (
        "Dorent et al. LNQ 2023 challenge: Benchmark of weakly-supervised techniques for mediastinal lymph node "
        "quantification. Machine Learning for Biomedical Imaging 3, 2025."
    )
    layout = {"train/lnq2023-train-*-ct.nrrd": 383, "train/lnq2023-train-*-seg.nrrd": 383}
    gigabytes = 30.0

    def cases(self, origin: Path) -> Iterator[Case]:
        for label in files(origin, "train/lnq2023-train-*-seg.nrrd"):
            key = label.name.removesuffix("-seg.nrrd")
            nodes = frozenset(_LABELS)
            yield Case(
                id=key,
                patient=key,
                images=(ImageFile(path=label.with_name(f"{key}-ct.nrrd"), modality="CT"),),
                annotations=(LabelMap(label, _LABELS, instances=nodes, partial=nodes),),
                incomplete=tuple(_LABELS),
            )
