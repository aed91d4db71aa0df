"""ATM22: the airway tree in chest CT."""

from collections.abc import Iterator
from pathlib import Path

from vividmed.data.adapters.base import Adapter, Case, ImageFile, LabelMap, Skipped, files, register

_LABELS = {"airway": 1}
_MISLABELLED = "ATM_164_0000"


@register
class ATM22(Adapter):
    name = "atm22"
    title = "ATM22"
    modalities = ("CT",)
    targets = tuple(_LABELS)
    licence = "ATM'22 challenge terms; CC BY 4.0 according to a mirror (not confirmed)"
    access = "registered"
    redistribute = "no"
    terms = "The challenge gives the scans to registered participants who signed its agreement."
    homepage = "https://atm22.grand-challenge.org/"
    citation = "Zhang et al. Multi-site, Multi-domain Airway Tree Modeling. Medical Image Analysis 90, 2023."
    layout = {"TrainBatch*/imagesTr/ATM_*_0000.nii.gz": 299, "TrainBatch*/labelsTr/ATM_*_0000.nii.gz": 299}
    gigabytes = 45.0

    def cases(self, origin: Path) -> Iterator[Case | Skipped]:
        for label in files(origin, "TrainBatch*/labelsTr/ATM_*_0000.nii.gz"):
            key = label.name.removesuffix(".nii.gz")
            if key == _MISLABELLED:
                yield Skipped(key, "the organisers announced that its label is wrong")
                continue
            yield Case(
                id=key,
                patient=key.removesuffix("_0000"),
                images=(ImageFile(path=label.parents[1] / "imagesTr" / label.name, modality="CT"),),
                annotations=(LabelMap(label, _LABELS),),
            )
