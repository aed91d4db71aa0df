"""Patients and images that are both trained on and evaluated on."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers.utils import logging

from vividmed.data.sampling.mixture import Mixture
from vividmed.data.sampling.mixture_stream import MixtureStream

logger = logging.get_logger(__name__)

_FILES = ("images", "volumes")


@dataclass(frozen=True)
class SplitOverlap:
    """How far training and evaluation rows overlap.

    Attributes:
        patients: number of patients of the evaluation rows.
        images: number of different images of the evaluation rows.
        shared_patients: number of these patients that training rows have, too.
        shared_images: number of these images that training rows have, too, byte for byte.
    """

    patients: int
    images: int
    shared_patients: int
    shared_images: int

    def __str__(self) -> str:
        if not self.shared_patients and not self.shared_images:
            return (
                f"None of the {self.patients} patients and {self.images} images is among the training rows "
                "(compared by patient id and by image content)."
            )
        return (
            f"**Not held out:** {self.shared_patients} of {self.patients} patients and {self.shared_images} of "
            f"{self.images} images are also among the training rows (compared by patient id and by image content). "
            "The figures below are too good by an unknown amount."
        )


def describe_overlap(train_rows: Dataset | Mixture | MixtureStream, eval_rows: Dataset | None) -> str:
    """What a model card says of the rows that are held out.

    Args:
        train_rows: rows of one data set, a mixture, or its stream, whose rows cannot be compared before they are read.
        eval_rows: rows of one data set; None where nothing is evaluated.
    """
    if eval_rows is None:
        return "No rows were held out."
    if isinstance(train_rows, MixtureStream):
        return (
            "The training rows were streamed, so patients and images of both splits were not compared: whether the "
            "evaluation rows are held out is unknown."
        )
    return str(find_overlap(train_rows, eval_rows))


def find_overlap(train_rows: Dataset | Mixture, eval_rows: Dataset) -> SplitOverlap:
    """Compare patients by their ids and images by their stored bytes, and warn about what is on both sides.

    Only training images as large as some evaluation image are read, so that the cost is that of the evaluation rows.

    Args:
        train_rows: rows of one data set, or a mixture.
        eval_rows: rows of one data set.
    """
    parts = train_rows.rows if isinstance(train_rows, Mixture) else (train_rows,)
    patients = _patients([eval_rows])
    shared_patients = patients & _patients(parts)
    evaluated = {_hash(image) for image in _images(eval_rows)}
    sizes = {size for size, _ in evaluated}
    trained = {_hash(image) for rows in parts for image in _images(rows) if _size(image) in sizes}
    overlap = SplitOverlap(
        patients=len(patients),
        images=len(evaluated),
        shared_patients=len(shared_patients),
        shared_images=len(evaluated & trained),
    )
    if overlap.shared_patients or overlap.shared_images:
        named = f" ({', '.join(sorted(shared_patients)[:3])})" if shared_patients else ""
        logger.warning(
            f"training and evaluation rows overlap: {overlap.shared_patients} of {overlap.patients} patients"
            f"{named} and {overlap.shared_images} of {overlap.images} images of the "
            "evaluation rows are also trained on; keep all rows of a patient in one split"
        )
    return overlap


def _patients(parts: Sequence[Dataset]) -> set[str]:
    """Patient ids; rows that state none have none in common."""
    found: set[str] = set()
    for rows in parts:
        if "patient" in rows.column_names:
            for batch in rows.select_columns(["patient"]).with_format("arrow").iter(batch_size=10_000):
                found.update(str(name).strip() for name in batch["patient"].unique().to_pylist() if name)
    return found - {""}


def _images(rows: Dataset) -> Iterator[Mapping[str, Any]]:
    """Every image and volume as it is stored: ``bytes`` as an Arrow scalar that is not read yet, or ``path``."""
    columns = [name for name in _FILES if name in rows.column_names]
    stored = rows.select_columns(columns).with_format("arrow")
    for batch in stored.iter(batch_size=256):
        for name in columns:
            for row in batch[name]:
                yield from (image for image in (row.values or ()) if image.is_valid)


def _size(image: Mapping[str, Any]) -> int:
    content = image["bytes"]
    if content.is_valid:
        return len(content.as_buffer())
    path = Path(str(image["path"].as_py()))
    return path.stat().st_size if path.is_file() else -1


def _hash(image: Mapping[str, Any]) -> tuple[int, str]:
    """Size and hash of the content; of a missing file, its path."""
    content = image["bytes"]
    if content.is_valid:
        buffer = content.as_buffer()
        return len(buffer), hashlib.sha256(buffer).hexdigest()
    path = Path(str(image["path"].as_py()))
    if not path.is_file():
        return -1, str(path)
    with path.open("rb") as file:
        return path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()
