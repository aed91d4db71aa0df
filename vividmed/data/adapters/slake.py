"""SLAKE: questions about radiographs, CT and MR slices, and boxes of the organs and diseases they show."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vividmed.data.adapters.base import (
    Adapter,
    Case,
    ImageFile,
    QuestionAnswer,
    Skipped,
    Split,
    box_2d,
    register,
)
from vividmed.data.raw.documents import as_line, read_json, read_records
from vividmed.data.taxonomy import Taxonomy
from vividmed.errors import VividMedError

_PARTS: dict[str, Split] = {"train": "train", "validate": "validation", "test": "test"}
_MODALITIES = {"CT": "CT", "MRI": "MRI", "X-Ray": "X-ray"}


class _SLAKE(Adapter):
    modalities = tuple(_MODALITIES.values())
    licence = "CC BY 4.0 (not confirmed)"
    access = "open"
    redistribute = "no"
    terms = "The licence is not confirmed."
    homepage = "https://www.med-vqa.com/slake/"
    citation = (
        "Liu et al. SLAKE: A Semantically-Labeled Knowledge-Enhanced Dataset for Medical Visual Question Answering. "
        "IEEE International Symposium on Biomedical Imaging, 2021."
    )
    gigabytes = 0.2
    published_split = True


@register
class SLAKE(_SLAKE):
    name = "slake"
    title = "SLAKE"
    row_kind = "vision_language"
    layout = {f"{part}.json": 1 for part in _PARTS} | {"imgs/xmlab*/source.jpg": 642}

    def cases(self, origin: Path) -> Iterator[Case | Skipped]:
        for image, (split, questions) in _questions(origin).items():
            turns = tuple(
                QuestionAnswer("vqa", as_line(q["question"]), as_line(q["answer"]))
                for q in questions
                if q["q_lang"] == "en" and as_line(q["question"]) and as_line(q["answer"])
            )
            if not turns:
                yield Skipped(image, "has no English question with an answer")
                continue
            yield Case(
                id=image, patient=image, split=split, images=(_file(origin, questions[0]),), turns=turns
            )


@register
class SLAKERegions(_SLAKE):
    name = "slake-regions"
    title = "SLAKE (boxes)"
    row_kind = "localization"
    targets = ()
    patients = "slake"
    layout = SLAKE.layout | {"imgs/xmlab*/detection.json": 642}

    def cases(self, origin: Path) -> Iterator[Case | Skipped]:
        for image, (split, questions) in _questions(origin).items():
            boxes = _boxes(origin / "imgs" / image / "detection.json")
            if not boxes:
                yield Skipped(image, "none of its boxes shows a target of the taxonomy")
                continue
            yield Case(
                id=image, patient=image, split=split, images=(_file(origin, questions[0]),), boxes=boxes
            )


def _questions(origin: Path) -> dict[str, tuple[Split, list[dict[str, Any]]]]:
    """Image to its split and all its questions."""
    found: dict[str, tuple[Split, list[dict[str, Any]]]] = {}
    for part, split in _PARTS.items():
        grouped: dict[str, list[dict[str, Any]]] = defaultdict(list)
        fields = ("img_name", "question", "answer", "q_lang", "modality")
        for question in read_records(origin / f"{part}.json", *fields):
            grouped[question["img_name"].partition("/")[0]].append(question)
        found |= {image: (split, questions) for image, questions in grouped.items()}
    return found


def _file(origin: Path, question: dict[str, Any]) -> ImageFile:
    modality = question["modality"]
    return ImageFile(
        path=origin / "imgs" / question["img_name"], modality=_MODALITIES.get(modality, modality)
    )


def _boxes(path: Path) -> tuple[tuple[str, tuple[int, int, int, int, int, int]], ...]:
    """Boxes of one image; names that the taxonomy does not have are left out.

    The file is a list of ``{name: [x, y, width, height]}`` in pixels.
    """
    taxonomy = Taxonomy.load()
    try:
        named = [(name, corners) for entry in read_json(path) for name, corners in entry.items()]
        return tuple(
            (taxonomy[name].name, box_2d(x, y, x + width, y + height))
            for name, (x, y, width, height) in named
            if name in taxonomy
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise VividMedError(f"{path}: not in the form [{{name: [x, y, width, height]}}] ({error})") from error
