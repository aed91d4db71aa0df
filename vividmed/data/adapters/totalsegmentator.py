"""TotalSegmentator: 117 structures of the whole body in CT, one file each."""

from collections.abc import Iterator
from pathlib import Path

from vividmed.data.adapters.base import (
    Adapter,
    Case,
    ImageFile,
    MaskFiles,
    column,
    files,
    official_split,
    read_table,
    register,
)
from vividmed.data.taxonomy import Taxonomy

_CLASSES = {target.ts_v2_key: target.name for target in Taxonomy.load() if target.ts_v2_key}


@register
class TotalSegmentator(Adapter):
    name = "totalsegmentator"
    title = "TotalSegmentator"
    modalities = ("CT",)
    targets = tuple(_CLASSES.values())
    licence = "CC BY 4.0"
    access = "open"
    redistribute = "yes"
    homepage = "https://github.com/wasserth/TotalSegmentator"
    citation = (
        "Wasserthal et al. TotalSegmentator: Robust Segmentation of 104 Anatomic Structures in CT Images. Radiology: "
        "Artificial Intelligence 5, 2023."
    )
    layout = {"s*/ct.nii.gz": 1228, "s*/segmentations/*.nii.gz": 1228 * len(_CLASSES), "meta.csv": 1}
    gigabytes = 30.0
    published_split = True

    def cases(self, origin: Path) -> Iterator[Case]:
        table = read_table(origin / "meta.csv", "image_id", "split", delimiter=";")
        split = column(table, "image_id", "split")
        for image in files(origin, "s*/ct.nii.gz"):
            folder = image.parent
            yield Case(
                id=folder.name,
                patient=folder.name,
                split=official_split(split.get(folder.name, "")),
                images=(ImageFile(path=image, modality="CT"),),
                annotations=(
                    MaskFiles(
                        {target: folder / f"segmentations/{name}.nii.gz" for name, target in _CLASSES.items()}
                    ),
                ),
            )
