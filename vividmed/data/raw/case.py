"""One case of an original data set: its files, what is annotated in them, and what is said about them."""

import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vividmed.data.masks import Box
from vividmed.data.raw.annotation import Annotation
from vividmed.data.raw.boxes import MARGIN
from vividmed.data.raw.documents import as_line
from vividmed.processing.medical_image import MedicalImage

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

_NOBODY = frozenset({"", "nan", "none", "null", "n/a"})
"""Texts that common libraries make of an empty patient field."""

_LONGEST_NAME, _LONGEST_PATH = 255, 4095
"""Bytes that Linux and most file systems allow."""


@dataclass(frozen=True, kw_only=True)
class ImageFile:
    """Where an image lies and what it shows.

    Attributes:
        path: NIfTI, NRRD, MetaImage, PNG, JPEG, TIFF or DICOM file, or a folder with one DICOM series.
        modality: expected answer to the modality question: ``CT``, ``T1 MRI``, ``X-ray``, ...; empty in a
            ``vision_language`` case whose data set does not record it.
        plane: plane or radiographic view if known: ``axial``, ``PA``, ``lateral``, ...
        channel: index along the last axis of a 4D NIfTI file with several sequences.
        read: function of a module that reads the path instead of the generic reader.
    """

    path: Path
    modality: str
    plane: str | None = None
    channel: int | None = None
    read: Callable[[Path], MedicalImage] | None = None


@dataclass(frozen=True)
class QuestionAnswer:
    """A question about the images and its answer.

    Attributes:
        turn_kind: ``report``, ``caption``, ``vqa``, ``presence``, ``modality`` or ``plane``.
        question: what the user asks. Training may reword it according to its kind, except for ``vqa``.
        answer: what the model should say.
    """

    turn_kind: str
    question: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class Case:
    """The unit of work of a preparation: cheap to make, picklable, without any image data.

    Which fields count depends on the adapter's ``row_kind``. A ``localization`` case gives one row per image; its
    images lie on one grid and share the annotations. A ``vision_language`` or ``grounded_report`` case gives one row.

    Ids may be given as text or whole numbers. They are stored as text without surrounding space and in Unicode's
    composed form, so that ``' 12 '``, ``'12'`` and ``12`` are one patient.

    Attributes:
        id: unique in the data set, and public: the data set's own name of the case.
        patient: pseudonym of the patient in the data set. ``other:12`` means patient 12 of the data set ``other``,
            from which the images were taken.
        images: in order of mention.
        split: official split, None if there is none.
        annotations: sources of masks on the grid of the images.
        boxes: target and voxel corners (z0, y0, x0, z1, y1, x1), half-open, on the grid of the image as it is read;
            see :func:`~vividmed.data.raw.boxes.box_2d`.
        boxes_drawn_on: (height, width) in pixels of the picture that the boxes refer to, if the data set records it.
            A case whose image has another size fails.
        box_margin: share of the image's edge by which a box may exceed the image; what exceeds it is cut off.
        absent: targets that were searched for and are not there, in addition to those that ``annotations`` finds
            empty.
        incomplete: targets of which there may be more than was annotated: what lies outside of their masks and boxes
            is not background.
        turns: of a ``vision_language`` case.
        report: of a ``grounded_report`` case, with ``<p>phrase</p>`` markers.
        phrases: for each marked phrase, in order, the targets it shows (names in ``annotations`` and ``boxes``).
    """

    id: str
    patient: str
    images: tuple[ImageFile, ...]
    split: Split | None = None
    annotations: tuple[Annotation, ...] = ()
    boxes: tuple[tuple[str, Box], ...] = ()
    boxes_drawn_on: tuple[int, int] | None = None
    box_margin: float = MARGIN
    absent: tuple[str, ...] = ()
    incomplete: tuple[str, ...] = ()
    turns: tuple[QuestionAnswer, ...] = ()
    report: str | None = None
    phrases: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", clean_id(self.id))
        object.__setattr__(self, "patient", clean_id(self.patient))

    def problem(self) -> str | None:
        """Why the case cannot be prepared, as far as its names and texts tell; None if they are sound."""
        if not self.id:
            return "its id is empty; every case needs one"
        if odd := _odd_text(self.id):
            return f"its id {odd}; rename the files or the entry of the table"
        if self.patient.rpartition(":")[2].strip().lower() in _NOBODY:
            return f"its patient id is empty ({self.patient!r}); every case needs one, because patients decide on splits"
        if odd := _odd_text(self.patient):
            return f"its patient id {odd}; correct the entry of the table"
        texts = [self.report or "", *(text for turn in self.turns for text in (turn.question, turn.answer))]
        texts += [text for image in self.images for text in (image.modality, image.plane or "")]
        if not all(isinstance(text, str) for text in texts):
            return "a question, an answer, the report, a modality or a plane is not text; correct the table or record"
        if any(map(_has_surrogates, texts)):
            return "its text contains half a character (a lone surrogate); correct the entry of the table or record"
        paths = [image.path for image in self.images]
        paths += [path for annotation in self.annotations for path in annotation.files()]
        return next((found for path in paths if (found := _odd_path(path))), None)


@dataclass(frozen=True)
class _Unprepared:
    """A case without rows. Its id and the reason become printable text in one line."""

    id: str
    reason: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", printable(clean_id(self.id)))
        object.__setattr__(self, "reason", printable(" ".join(self.reason.split())))


@dataclass(frozen=True)
class Skipped(_Unprepared):
    """A case that is left out on purpose: it is listed with its reason and does not count as a failure."""


@dataclass(frozen=True)
class Failed(_Unprepared):
    """A case that cannot be made from what the data set says about it: it is listed as a failure with its reason."""


Listed = Case | Skipped | Failed


def clean_id(value: Any) -> str:
    """An id as text: whole numbers in decimal, surrounding space removed, Unicode in its composed form."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return unicodedata.normalize("NFC", str(value)).strip() if value is not None else ""


def printable(text: str) -> str:
    """Text in one line, with bytes that are not UTF-8 and control characters replaced by question marks."""
    decoded = text.encode("utf-8", "replace").decode()
    return "".join(character if character.isprintable() else "?" for character in decoded)


def report_turn(findings: str, impression: str | None = None) -> QuestionAnswer:
    """A report in the published form: ``Findings: ...`` and ``Impression: ...``, each on its own line."""
    lines = [f"Findings: {findings}"] + ([f"Impression: {impression}"] if impression else [])
    wanted = "the findings and the impression" if impression else "the findings"
    return QuestionAnswer("report", f"Write {wanted} of the report of this image.", "\n".join(lines))


def caption_turn(caption: str) -> QuestionAnswer:
    """A caption of the image."""
    return QuestionAnswer("caption", "Write a caption for this image.", caption)


def vqa_turns(pairs: Iterable[tuple[Any, Any]]) -> Iterator[QuestionAnswer]:
    """Free questions and answers, each as one line; pairs without a question or an answer are left out."""
    for question, answer in pairs:
        if as_line(question) and as_line(answer):
            yield QuestionAnswer("vqa", as_line(question), as_line(answer))


def presence_turn(
    *, present: Iterable[str] = (), absent: Iterable[str] = (), uncertain: Iterable[str] = ()
) -> QuestionAnswer:
    """Image-level labels as a list in the published form: ``Results: cardiomegaly: yes, pneumothorax: no.``

    Names in none of the three are not mentioned: nothing is known about them.

    Args:
        present: names answered by ``yes``.
        absent: names answered by ``no``.
        uncertain: names answered by ``uncertain``.
    """
    answers = (
        dict.fromkeys(present, "yes") | dict.fromkeys(absent, "no") | dict.fromkeys(uncertain, "uncertain")
    )
    names = sorted(answers)
    listed = ", ".join(names)
    question = (
        f"Which of the following are present in this image: {listed}? Answer yes, no or uncertain for each."
    )
    return QuestionAnswer(
        "presence", question, "Results: " + ", ".join(f"{name}: {answers[name]}" for name in names) + "."
    )


def _odd_text(text: str) -> str | None:
    if _has_surrogates(text):
        return f"{printable(text)!r} is not UTF-8"
    if not text.isprintable():
        return f"{printable(text)!r} contains control characters"
    if len(text.encode()) > _LONGEST_PATH:
        return f"{text[:40]!r}... has {len(text)} characters"
    return None


def _odd_path(path: Path) -> str | None:
    text = str(path)
    if "\0" in text:
        return f"the path {printable(text)} contains a NUL byte; correct the entry of the table"
    if _has_surrogates(text):
        return f"the path {printable(text)} is not UTF-8; rename the file"
    if len(text.encode()) > _LONGEST_PATH or any(len(part.encode()) > _LONGEST_NAME for part in path.parts):
        return f"the path {printable(text)[:80]}... is longer than any file's; correct the entry of the table"
    return None


def _has_surrogates(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
