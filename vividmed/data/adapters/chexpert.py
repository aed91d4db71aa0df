"""CheXpert: chest radiographs with labels of fourteen findings, without places.

Labels of the training images are those of the visual CheXbert labeller, labels of the others are radiologists'.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from vividmed.data.adapters.base import (
    Adapter,
    Case,
    ImageFile,
    Skipped,
    Split,
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

    def cases(self, origin: Path) -> Iterator[Case | Skipped]:
        for table, split in _TABLES:
            for row in read_table(origin / table, "Path", NO_FINDING, *CHEXPERT_TARGETS):
                # Some tables name the files from the folder of the images, others from above it.
                path = origin / _IMAGES / row["Path"].removeprefix(f"{_IMAGES}/")
                patient, study = path.parts[-3:-1]
                key = f"{patient}-{study}-{path.stem}"
                labels = parse_chexpert(row, where=f"{table}, {row['Path']}")
                if not (labels.present or labels.absent or labels.uncertain):
                    yield Skipped(key, "its labels say nothing about any finding")
                    continue
                yield Case(
                    id=key,
                    patient=patient,
                    split=split,
                    images=(ImageFile(path=path, modality="X-ray", plane=_view(path, row)),),
                    turns=(
                        presence_turn(
                            present=labels.present, absent=labels.absent, uncertain=labels.uncertain
                        ),
                    ),
                )


def _view(path: Path, row: Mapping[str, str]) -> str:
    """``AP`` or ``PA`` where the table tells, else what the name of the file tells: ``view1_frontal.jpg``."""
    return row.get("AP/PA") or path.stem.rpartition("_")[2]
