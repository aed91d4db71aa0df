"""VQA-RAD: questions of clinicians about radiology images of MedPix."""

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
    each_case,
    register,
    vqa_turns,
)
from vividmed.data.raw.documents import as_line, read_records

# All images of the chest are radiographs and all of the abdomen CT; those of the head are CT or MR.
_MODALITIES = {"CHEST": "X-ray", "ABD": "CT"}


@register
class VQARAD(Adapter):
    """The official split divides questions: most test images have training questions too.

    Both halves are kept, so that results can be compared with the literature. They are separate cases with separate
    patient keys, ``synpic100`` and ``synpic100-test``; the images of this data set occur in no other one.
    """

    name = "vqa-rad"
    title = "VQA-RAD"
    row_kind = "vision_language"
    modalities = ("CT", "MRI", "X-ray")
    licence = "CC0 1.0"
    access = "open"
    redistribute = "yes"
    homepage = "https://osf.io/89kps/"
    citation = (
        "Lau et al. A dataset of clinically generated visual questions and answers about radiology images. Scientific "
        "Data 5, 2018."
    )
    layout = {"VQA_RAD Dataset Public.json": 1, "VQA_RAD Image Folder/*.jpg": 315}
    gigabytes = 0.1
    published_split = True

    def cases(self, origin: Path) -> Iterator[Listed]:
        grouped: dict[tuple[str, Split], list[dict[str, Any]]] = defaultdict(list)
        fields = ("image_name", "image_organ", "phrase_type", "question", "answer")
        for record in read_records(origin / "VQA_RAD Dataset Public.json", *fields):
            split: Split = "test" if as_line(record["phrase_type"]).startswith("test") else "train"
            grouped[as_line(record["image_name"]), split].append(record)
        items = ((image, (image, split, records)) for (image, split), records in grouped.items())
        yield from each_case(items, partial(_case, folder=origin / "VQA_RAD Image Folder"))


def _case(item: tuple[str, Split, list[dict[str, Any]]], *, folder: Path) -> Case | Skipped:
    image, split, records = item
    key = Path(image).stem + ("-test" if split == "test" else "")
    turns = tuple(vqa_turns((record["question"], record["answer"]) for record in records))
    if not turns:
        return Skipped(key, "it has no question with an answer")
    modality = _MODALITIES.get(as_line(records[0]["image_organ"]), "")
    return Case(
        id=key,
        patient=key,
        split=split,
        images=(ImageFile(path=below(folder, image), modality=modality),),
        turns=turns,
    )
