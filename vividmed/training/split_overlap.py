"""Patients and images that are both trained on and evaluated on."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from transformers.utils import logging

from vividmed.data.image_grids import IMAGE_COLUMNS
from vividmed.data.sampling.mixture import Mixture
from vividmed.data.sampling.mixture_stream import MixtureStream

logger = logging.get_logger(__name__)

_PARTS, _PART = 3, 4096


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

    Images are compared by their size and a few small parts first, and read whole only if these agree: the cost depends
    on the number of images that are on both sides, not on the size of the data sets.

    Args:
        train_rows: rows of one data set, or a mixture.
        eval_rows: rows of one data set.
    """
    parts = train_rows.rows if isinstance(train_rows, Mixture) else (train_rows,)
    patients = _patients([eval_rows])
    shared_patients = patients & _patients(parts)
    evaluated: dict[tuple[int, str], list[Any]] = defaultdict(list)
    for image in _images(eval_rows):
        evaluated[_sample(image)].append(image)
    # Only images that agree in size and in some parts are read whole.
    sizes = pa.array(sorted({size for size, _ in evaluated}), pa.int32())
    trained: dict[tuple[int, str], set[str]] = defaultdict(set)
    for image in (image for rows in parts for image in _images(rows, sizes)):
        if (sample := _sample(image)) in evaluated:
            trained[sample].add(_hash(image))
    images = shared_images = 0
    for sample, alike in evaluated.items():
        if len(alike) == 1 and sample not in trained:
            images += 1
            continue
        different = {_hash(image) for image in alike}
        images += len(different)
        shared_images += len(different & trained.get(sample, set()))
    overlap = SplitOverlap(
        patients=len(patients),
        images=images,
        shared_patients=len(shared_patients),
        shared_images=shared_images,
    )
    if overlap.shared_patients or overlap.shared_images:
        logger.warning(
            f"training and evaluation rows overlap: {overlap.shared_patients} of {overlap.patients} patients "
            f"and {overlap.shared_images} of {overlap.images} images of the evaluation rows are also trained on; keep all "
            "rows of a patient in one split"
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


def _images(rows: Dataset, sizes: pa.Array | None = None) -> Iterator[Mapping[str, Any]]:
    """Every image and volume as it is stored: ``bytes`` as an Arrow scalar that is not read yet, or ``path``.

    Args:
        rows: rows of any kind.
        sizes: leave out images that are stored with another number of bytes.
    """
    columns = [name for name in IMAGE_COLUMNS if name in rows.column_names]
    stored = rows.select_columns(columns).with_format("arrow")
    for batch in stored.iter(batch_size=256):
        for chunk in (chunk for name in columns for chunk in batch[name].chunks):
            images = chunk.flatten()
            lengths = pc.binary_length(images.field("bytes"))
            wanted = images.is_valid()
            if sizes is not None:
                wanted = pc.and_(wanted, pc.or_(lengths.is_null(), pc.is_in(lengths, value_set=sizes)))
            yield from (images[index] for index in np.flatnonzero(wanted.to_numpy(zero_copy_only=False)))


def _sample(image: Mapping[str, Any]) -> tuple[int, str]:
    """Size of the stored image and hash of a few parts of it; of a missing file, its path."""
    content = image["bytes"]
    if content.is_valid:
        buffer = content.as_buffer()
        size, read = len(buffer), lambda place: memoryview(buffer)[place : place + _PART]
        return size, _hash_parts(size, read)
    path = Path(str(image["path"].as_py()))
    if not path.is_file():
        return -1, str(path)
    with path.open("rb") as file:
        size = path.stat().st_size
        return size, _hash_parts(size, lambda place: os.pread(file.fileno(), _PART, place))


def _hash_parts(size: int, read: Callable[[int], Any]) -> str:
    digest = hashlib.sha256()
    for share in range(_PARTS):
        digest.update(read(max(0, size - _PART) * share // (_PARTS - 1)))
    return digest.hexdigest()


def _hash(image: Mapping[str, Any]) -> str:
    """Hash of the whole stored image; of a missing file, its path."""
    content = image["bytes"]
    if content.is_valid:
        return hashlib.sha256(content.as_buffer()).hexdigest()
    path = Path(str(image["path"].as_py()))
    if not path.is_file():
        return str(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
