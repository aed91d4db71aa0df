"""CheXpert: chest radiographs with labels of fourteen findings, without locations.

Training images have labels of the visual CheXbert labeller, the others have those of radiologists.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath

from vividmed.data.adapters.base import (
    Adapter,
    Case,
    ImageFile,
    Listed,
    Skipped,
    Split,
    TableRow,
    below,
    each_case,
    presence_turn,
    read_table,
    register,
)
from vividmed.data.raw.finding_labels import CHEXPERT_TARGETS, NO_FINDING, parse_chexpert

_IMAGES = "CheXpert-v1.0"
_TABLES: tuple[tuple[str, Split], ...] = (
    ("train_visualCheXbert.csv", "train"),
    (f"{_IMAGES}/valid.csv", "validation"),
    (f"{_IMAGES}/test.csv", "test"),
)


@register
class CheXpert(Adapter):
    name = "chexpert"
    title = "CheXpert"
    row_kind = "vision_language"
    modalities = ("X-ray",)
    targets = tuple(CHEXPERT_TARGETS.values())
    licence = "Stanford AIMI research use agreement"
    access = "registered"
    redistribute = "no"
    terms = (
        "Stanford gives the images to registered users who accept its agreement; they must not be passed on."
    )
    homepage = "https://stanfordaimi.azurewebsites.net/datasets/8cbd9ed4-2eb9-4565-affc-111cf4f7ebe2"
    citation = (
        "Irvin et al. CheXpert: A Large Chest Radiograph Dataset with Uncertainty Labels and Expert Comparison. AAAI "
        "Conference on Artificial Intelligence, 2019."
    )
    layout = {name: 1 for name, _ in _TABLES} | {
        f"{_IMAGES}/train/*/*/*.jpg": 223414,
        f"{_IMAGES}/valid/*/*/*.jpg": 234,
        f"{_IMAGES}/test/*/*/*.jpg": 668,
    }
    gigabytes = 440.0
    published_split = True

    def cases(self, origin: Path) -> Iterator[Listed]:
        for table, split in _TABLES:
            rows = read_table(origin / table, "Path", NO_FINDING, *CHEXPERT_TARGETS)
            yield from each_case(
                ((row["Path"], row) for row in rows), partial(_case, origin=origin, split=split)
            )


def _case(row: TableRow, *, origin: Path, split: Split) -> Case | Skipped:
    # Some tables name the files from the folder of the images, others from above it.
    name = PurePosixPath(row["Path"].removeprefix(f"{_IMAGES}/"))
    patient, study = name.parts[-3:-1]
    key = f"{patient}-{study}-{name.stem}"
    labels = parse_chexpert(row, where=row.where)
    if not (labels.present or labels.absent or labels.uncertain):
        return Skipped(key, "its labels say nothing about any finding")
    # AP or PA if the table has it, else what the name says: view1_frontal.jpg.
    view = row.get("AP/PA") or name.stem.rpartition("_")[2]
    return Case(
        id=key,
        patient=patient,
        split=split,
        images=(ImageFile(path=below(origin / _IMAGES, name), modality="X-ray", plane=view),),
        turns=(presence_turn(present=labels.present, absent=labels.absent, uncertain=labels.uncertain),),
    )
