"""VQA-Med 2019, the ImageCLEF challenge: questions on modality, plane, organ, and abnormality of MedPix images."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

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
from vividmed.data.raw.documents import read_text
from vividmed.data.raw.report_text import clean_whitespace
from vividmed.errors import VividMedError

# Table, folder of its images, number of fields per line (the test table has the category second), split.
_PARTS: tuple[tuple[str, str, int, Split], ...] = (
    (
        "ImageClef-2019-VQA-Med-Training/All_QA_Pairs_train.txt",
        "ImageClef-2019-VQA-Med-Training/Train_images",
        3,
        "train",
    ),
    (
        "ImageClef-2019-VQA-Med-Validation/All_QA_Pairs_val.txt",
        "ImageClef-2019-VQA-Med-Validation/Val_images",
        3,
        "validation",
    ),
    (
        "VQAMed2019Test/VQAMed2019_Test_Questions_w_Ref_Answers.txt",
        "VQAMed2019Test/VQAMed2019_Test_Images",
        4,
        "test",
    ),
)


@register
class VQAMed2019(Adapter):
    name = "vqa-med-2019"
    title = "VQA-Med 2019"
    row_kind = "vision_language"
    modalities = ("X-ray", "CT", "MRI", "ultrasound", "angiography", "PET")
    licence = "CC BY 4.0 (not confirmed)"
    access = "open"
    redistribute = "no"
    terms = "The licence is not confirmed."
    homepage = "https://github.com/abachaa/VQA-Med-2019"
    citation = (
        "Ben Abacha et al. VQA-Med: Overview of the Medical Visual Question Answering Task at ImageCLEF 2019. CLEF "
        "Working Notes, 2019."
    )
    layout = {
        "ImageClef-2019-VQA-Med-Training/Train_images/*.jpg": 3200,
        "ImageClef-2019-VQA-Med-Validation/Val_images/*.jpg": 500,
        "VQAMed2019Test/VQAMed2019_Test_Images/*.jpg": 500,
    } | {table: 1 for table, _, _, _ in _PARTS}
    gigabytes = 0.5
    published_split = True

    def cases(self, origin: Path) -> Iterator[Listed]:
        for table, folder, width, split in _PARTS:
            make = partial(_case, folder=origin / folder, split=split)
            yield from each_case(
                ((image, (image, pairs)) for image, pairs in _pairs(origin / table, width)), make
            )


def _case(item: tuple[str, list[tuple[str, str]]], *, folder: Path, split: Split) -> Case | Skipped:
    image, pairs = item
    turns = tuple(vqa_turns(pairs))
    if not turns:
        return Skipped(image, "it has no question with an answer")
    file = ImageFile(path=below(folder, f"{image}.jpg"), modality="")
    return Case(id=image, patient=image, split=split, images=(file,), turns=turns)


def _pairs(table: Path, width: int) -> Iterable[tuple[str, list[tuple[str, str]]]]:
    """Image to its questions and answers, from lines of fields between bars: image first, question and answer last."""
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for number, line in enumerate(read_text(table).split("\n"), 1):
        if not line.strip():
            continue
        fields = [clean_whitespace(field) for field in line.split("|", width - 1)]
        if len(fields) != width:
            raise VividMedError(
                f"{table}: line {number} has {len(fields)} fields instead of {width}; take the file as it is distributed"
            )
        found[fields[0]].append((fields[-2], fields[-1]))
    return found.items()
