"""RibFrac: rib fractures in CT, each with a label value of its own."""

from collections.abc import Iterator
from pathlib import Path

from vividmed.data.adapters.base import Adapter, Case, ImageFile, LabelMap, Split, files, register

_FRACTURE = "rib fracture"
_MOST_FRACTURES = 1000
_FOLDERS: tuple[tuple[str, Split], ...] = (("Part*", "train"), ("ribfrac-val-labels", "validation"))


@register
class RibFrac(Adapter):
    name = "ribfrac"
    title = "RibFrac"
    modalities = ("CT",)
    targets = (_FRACTURE,)
    licence = "CC BY-NC 4.0 (not confirmed)"
    access = "open"
    redistribute = "no"
    terms = "The licence must be confirmed before the scans are shared."
    homepage = "https://ribfrac.grand-challenge.org/"
    citation = (
        "Jin et al. Deep-learning-assisted detection and segmentation of rib fractures from CT scans: Development and "
        "validation of FracNet. EBioMedicine 62, 2020."
    )
    layout = {
        "Part*/RibFrac*-image.nii.gz": 420,
        "Part*/RibFrac*-label.nii.gz": 420,
        "ribfrac-val-images/RibFrac*-image.nii.gz": 80,
        "ribfrac-val-labels/RibFrac*-label.nii.gz": 80,
    }
    gigabytes = 60.0
    published_split = True

    def cases(self, origin: Path) -> Iterator[Case]:
        for folder, split in _FOLDERS:
            if split == "validation" and not (origin / folder).is_dir():
                continue  # an archive of its own, which not everyone needs
            for label in files(origin, f"{folder}/RibFrac*-label.nii.gz"):
                key = label.name.removesuffix("-label.nii.gz")
                parent = label.parent.name.replace("labels", "images")
                annotation = LabelMap(
                    label, {_FRACTURE: range(1, _MOST_FRACTURES)}, by_value=frozenset({_FRACTURE})
                )
                yield Case(
                    id=key,
                    patient=key.removeprefix("RibFrac"),
                    split=split,
                    images=(ImageFile(path=origin / parent / f"{key}-image.nii.gz", modality="CT"),),
                    annotations=(annotation,),
                )
