"""SEG.A 2023: the aorta and its branches in CT angiography of three centres."""

from collections.abc import Iterator
from pathlib import Path

from vividmed.data.adapters.base import Adapter, Case, ImageFile, LabelMap, files, register


@register
class SegA2023(Adapter):
    name = "seg-a-2023"
    title = "SEG.A.2023"
    modalities = ("CT angiography",)
    targets = ("aortic vessel tree",)
    licence = "CC BY 4.0 (not confirmed); scans of KiTS19 and RIDER under their own licences"
    access = "open"
    redistribute = "no"
    terms = "The licence, and those of the collections the scans come from, must be confirmed before they are shared."
    homepage = "https://multicenteraorta.grand-challenge.org/"
    citation = (
        "Radl et al. AVT: Multicenter aortic vessel tree CTA dataset collection with ground truth segmentation masks. "
        "Data in Brief 40, 2022."
    )
    layout = {"*/*/*.seg.nrrd": 56}
    gigabytes = 8.0

    def cases(self, origin: Path) -> Iterator[Case]:
        for label in files(origin, "*/*/*.seg.nrrd"):
            key = label.name.removesuffix(".seg.nrrd")
            yield Case(
                id=key,
                patient=key,
                images=(ImageFile(path=label.with_name(f"{key}.nrrd"), modality="CT angiography"),),
                annotations=(LabelMap(label, {"aortic vessel tree": 1}),),
            )
