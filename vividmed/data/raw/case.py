"""One case of an original data set: its files, what is annotated in them, and what is said about them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vividmed.data.masks import Box
from vividmed.data.raw.annotation import Annotation
from vividmed.processing.medical_image import MedicalImage

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class ImageFile:
    """Where an image lies and what kind it is.

    Attributes:
        path: NIfTI, NRRD, MetaImage, PNG, JPEG, TIFF or DICOM file, or a folder with one DICOM series.
        modality: As the modality question is to be answered: ``CT``, ``T1 MRI``, ``X-ray``, ...; empty in a
            ``vision_language`` case whose data set does not record it.
        plane: Plane or radiographic view where it is known: ``axial``, ``PA``, ``lateral``, ...
        channel: Index along the last axis of a 4D NIfTI file that holds several sequences.
        read: Reads the path instead of the generic reader; a module-level function.
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
        kind: ``report``, ``caption``, ``vqa``, ``presence``, ``modality`` or ``plane``.
        question: What the user asks. Training may reword it by its kind, except for ``vqa``.
        answer: What the model should say.
    """

    kind: str
    question: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class Case:
    """The unit of work of a preparation; cheap to make, picklable, nothing read yet.

    Which fields count depends on the adapter's kind. A ``localization`` case gives a row for each of its images, which
    lie on one grid and share the annotations. A ``vision_language`` or ``grounded_report`` case gives one row.

    Attributes:
        id: Unique in the data set and public: what the data set itself calls the case.
        patient: Pseudonym of the patient in the data set. ``other:12`` names patient 12 of the data set ``other``,
            for images that were taken over from there.
        images: In order of mention.
        split: Official split, None where there is none.
        annotations: Sources of masks on the grid of the images.
        boxes: Target and voxel corners (z0, y0, x0, z1, y1, x1), half-open, on the grid of the image as it is read;
            see :func:`box_2d`.
        absent: Targets that were searched for and are not there, beyond those that ``annotations`` finds empty.
        incomplete: Targets of which there may be more than was annotated: what lies outside of their masks and boxes
            is not background.
        turns: Of a ``vision_language`` case.
        report: Of a ``grounded_report`` case, with ``<p>phrase</p>`` markers.
        phrases: For each marked phrase, in order, the targets (names in ``annotations`` and ``boxes``) it shows.
    """

    id: str
    patient: str
    images: tuple[ImageFile, ...]
    split: Split | None = None
    annotations: tuple[Annotation, ...] = ()
    boxes: tuple[tuple[str, Box], ...] = ()
    absent: tuple[str, ...] = ()
    incomplete: tuple[str, ...] = ()
    turns: tuple[QuestionAnswer, ...] = ()
    report: str | None = None
    phrases: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Skipped:
    """A case that is left out on purpose: it is listed with its reason and is no failure."""

    id: str
    reason: str


def box_2d(x0: float, y0: float, x1: float, y1: float) -> Box:
    """Box of a 2D image from pixel corners.

    Args:
        x0: Left edge.
        y0: Upper edge.
        x1: Right edge, outside the box.
        y1: Lower edge, outside the box.

    Returns:
        (0, y0, x0, 1, y1, x1), rounded to the nearest pixel edge.
    """
    return 0, round(y0), round(x0), 1, round(y1), round(x1)


def report_turn(findings: str, impression: str | None = None) -> QuestionAnswer:
    """A report in the published form, ``Findings: ...`` and ``Impression: ...`` on a line each."""
    lines = [f"Findings: {findings}"] + ([f"Impression: {impression}"] if impression else [])
    wanted = "the findings and the impression" if impression else "the findings"
    return QuestionAnswer("report", f"Write {wanted} of the report of this image.", "\n".join(lines))


def caption_turn(caption: str) -> QuestionAnswer:
    """A caption of the image."""
    return QuestionAnswer("caption", "Write a caption for this image.", caption)


def presence_turn(
    *, present: Iterable[str] = (), absent: Iterable[str] = (), uncertain: Iterable[str] = ()
) -> QuestionAnswer:
    """Image-level labels as a list in the published form: ``Results: cardiomegaly: yes, pneumothorax: no.``

    Names in none of the three are not mentioned: nothing is known about them.

    Args:
        present: Answered by ``yes``.
        absent: Answered by ``no``.
        uncertain: Answered by ``uncertain``.
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
