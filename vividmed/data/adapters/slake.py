"""SLAKE: questions about radiographs, CT and MR slices, and boxes of the organs and diseases that they show."""

from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from vividmed.data.adapters.base import (
    Adapter,
    Case,
    ImageFile,
    Listed,
    Skipped,
    Split,
    below,
    box_2d,
    each_case,
    register,
    vqa_turns,
)
from vividmed.data.raw.boxes import Boxes
from vividmed.data.raw.documents import as_line, read_json, read_records
from vividmed.data.raw.tables import finite
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

    def cases(self, origin: Path) -> Iterator[Listed]:
        yield from each_case(_questions(origin), partial(_case_of_questions, origin=origin))


@register
class SLAKERegions(_SLAKE):
    name = "slake-regions"
    title = "SLAKE (boxes)"
    row_kind = "localization"
    targets = ()
    patients = "slake"
    layout = SLAKE.layout | {"imgs/xmlab*/detection.json": 642}

    def cases(self, origin: Path) -> Iterator[Listed]:
        yield from each_case(_questions(origin), partial(_case_of_boxes, origin=origin))


Questions = tuple[str, Split, list[dict[str, Any]]]
"""Name of the image's folder, its split, and all its questions."""


def _case_of_questions(item: Questions, *, origin: Path) -> Case | Skipped:
    image, split, questions = item
    turns = tuple(vqa_turns((q["question"], q["answer"]) for q in questions if q["q_lang"] == "en"))
    if not turns:
        return Skipped(image, "it has no English question with an answer")
    return Case(id=image, patient=image, split=split, images=(_file(origin, questions[0]),), turns=turns)


def _case_of_boxes(item: Questions, *, origin: Path) -> Case | Skipped:
    image, split, questions = item
    file = _file(origin, questions[0])
    boxes = _boxes(file.path.with_name("detection.json"))
    if not boxes:
        return Skipped(image, "none of its boxes shows a target of the taxonomy")
    return Case(id=image, patient=image, split=split, images=(file,), boxes=boxes)


def _questions(origin: Path) -> Iterator[tuple[str, Questions]]:
    """Yield every image with its questions; an image that two parts name belongs to the later one."""
    found: dict[str, Questions] = {}
    for part, split in _PARTS.items():
        grouped: dict[str, list[dict[str, Any]]] = defaultdict(list)
        fields = ("img_name", "question", "answer", "q_lang", "modality")
        for question in read_records(origin / f"{part}.json", *fields):
            grouped[as_line(question["img_name"]).partition("/")[0]].append(question)
        found |= {image: (image, split, questions) for image, questions in grouped.items()}
    yield from found.items()


def _file(origin: Path, question: dict[str, Any]) -> ImageFile:
    modality = as_line(question["modality"])
    path = below(origin / "imgs", question["img_name"])
    return ImageFile(path=path, modality=_MODALITIES.get(modality, modality))


def _boxes(path: Path) -> Boxes:
    """Boxes of one image; names that are not in the taxonomy are left out.

    The file is a list of ``{name: [x, y, width, height]}`` in pixels.
    """
    taxonomy = Taxonomy.load()
    try:
        named = [
            (name, [finite(number, f"{path}: {name}") for number in corners])
            for entry in read_json(path)
            for name, corners in entry.items()
            if name in taxonomy
        ]
        return tuple(
            (taxonomy[name].name, box_2d(x, y, x + width, y + height, where=f"{path}: {name}"))
            for name, (x, y, width, height) in named
        )
    except VividMedError:
        raise
    except (AttributeError, TypeError, ValueError) as error:
        raise VividMedError(f"{path}: not in the form [{{name: [x, y, width, height]}}] ({error})") from error
