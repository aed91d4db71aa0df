"""ROCOv2: captioned figures of articles in PubMed Central, of all modalities of radiology."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from vividmed.data.adapters.base import (
    Adapter,
    Case,
    ImageFile,
    Listed,
    Skipped,
    Split,
    TableRow,
    below,
    caption_turn,
    column,
    each_case,
    read_table,
    register,
)
from vividmed.data.raw.report_text import MIN_CAPTION_LETTERS, clean_text

_PARTS: dict[str, Split] = {"train": "train", "valid": "validation", "test": "test"}
# Concepts of the UMLS that the authors assigned by hand.
_MODALITIES = {
    "C0040405": "CT",
    "C0024485": "MRI",
    "C1306645": "X-ray",
    "C0041618": "ultrasound",
    "C0002978": "angiography",
    "C0032743": "PET",
}


@register
class ROCOv2(Adapter):
    name = "rocov2"
    title = "ROCOv2"
    row_kind = "vision_language"
    modalities = tuple(_MODALITIES.values())
    licence = "CC BY-NC-SA 4.0 (not confirmed; each article has its own)"
    access = "open"
    redistribute = "no"
    terms = "Figures keep the licences of their articles, which have not been checked one by one."
    homepage = "https://doi.org/10.5281/zenodo.10821435"
    citation = (
        "Rückert et al. ROCOv2: Radiology Objects in COntext Version 2, an Updated Multimodal Image Dataset. "
        "Scientific Data 11, 2024."
    )
    layout = {
        "train_captions.csv": 1,
        "train/*.jpg": 59958,
        "valid/*.jpg": 9904,
        "test/*.jpg": 9927,
        "train_concepts_manual.csv": 1,
    }
    gigabytes = 8.0
    published_split = True

    def cases(self, origin: Path) -> Iterator[Listed]:
        for part, split in _PARTS.items():
            captions = origin / f"{part}_captions.csv"
            if part != "train" and not captions.exists():
                continue
            concepts = origin / f"{part}_concepts_manual.csv"
            known = column(read_table(concepts, "ID", "CUIs"), "ID", "CUIs") if concepts.exists() else {}
            make = partial(_case, folder=origin / part, split=split, concepts=known)
            yield from each_case(((row["ID"], row) for row in read_table(captions, "ID", "Caption")), make)


def _case(row: TableRow, *, folder: Path, split: Split, concepts: Mapping[str, str]) -> Case | Skipped:
    key, caption = row["ID"], clean_text(row["Caption"])
    if len(caption) < MIN_CAPTION_LETTERS:
        return Skipped(key, f"its caption has fewer than {MIN_CAPTION_LETTERS} letters")
    modality = _modality(concepts.get(key, ""))
    return Case(
        id=key,
        patient=key,  # nothing is known about who is shown
        split=split,
        images=(ImageFile(path=below(folder, f"{key}.jpg"), modality=modality),),
        turns=(caption_turn(caption),),
    )


def _modality(concepts: str) -> str:
    """The only modality that is named; empty if there is none or, for combined figures, more than one."""
    named = {_MODALITIES[concept] for concept in concepts.split(";") if concept in _MODALITIES}
    return named.pop() if len(named) == 1 else ""
