"""VQA-Med 2019, the ImageCLEF challenge: questions on modality, plane, organ, and abnormality of MedPix images."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from vividmed.data.adapters.base import Adapter, Case, ImageFile, QuestionAnswer, Skipped, Split, register
from vividmed.data.raw.documents import read_text
from vividmed.data.raw.report_text import clean_whitespace
from vividmed.errors import VividMedError

# Table, folder of its images, number of fields a line (the test table has the category second), split.
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

    def cases(self, origin: Path) -> Iterator[Case | Skipped]:
        for table, folder, width, split in _PARTS:
            for image, turns in _turns(origin / table, width).items():
                if not turns:
                    yield Skipped(image, "has no question with an answer")
                    continue
                file = ImageFile(path=origin / folder / f"{image}.jpg", modality="")
                yield Case(id=image, patient=image, split=split, images=(file,), turns=tuple(turns))


def _turns(table: Path, width: int) -> dict[str, list[QuestionAnswer]]:
    """Image to its questions, from lines of fields between bars: image first, question and answer last."""
    found: dict[str, list[QuestionAnswer]] = defaultdict(list)
    for number, line in enumerate(read_text(table).split("\n"), 1):
        if not line.strip():
            continue
        fields = [clean_whitespace(field) for field in line.split("|", width - 1)]
        if len(fields) != width:
            raise VividMedError(
                f"{table}: line {number} has {len(fields)} fields instead of {width}; take the file as it is distributed"
            )
        image, question, answer = fields[0], *fields[-2:]
        if question and answer:
            found[image].append(QuestionAnswer("vqa", question, answer))
        else:
            found.setdefault(image, [])
    return found
