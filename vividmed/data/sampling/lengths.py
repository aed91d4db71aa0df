"""Lengths of rows in tokens, measured without decoding a pixel."""

import zlib
from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from datasets import Dataset
from PIL import Image as PillowImage

from vividmed.triples import Triple

_IMAGES = ("images", "volumes")
_TEXTS = ("messages", "report", "targets", "absent")
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WINDOW = 31
_NIFTI1_BYTES, _NIFTI2_BYTES = 348, 540
_NIFTI2_SIZES = {_NIFTI2_BYTES.to_bytes(4, order) for order in ("little", "big")}
_PREFIX_BYTES = 8192


def measure_lengths(rows: Dataset, processor: Any, *, num_workers: int = 1) -> list[int]:
    """Length in tokens of each row's sequence: its images, computed from the headers of the files, and its text.

    The result is kept in the data set's cache. An image or text that cannot be read counts as nothing: whether such a
    row is skipped or stops the run is decided when it is used.

    Args:
        rows: rows of any kind. What localization rows will say is not known before it is drawn; the names of their
            targets stand for it.
        processor: a ``VividMedProcessor``.
        num_workers: number of processes.
    """
    columns = [name for name in (*_IMAGES, *_TEXTS) if name in rows.column_names]
    stored = rows.select_columns(columns).with_format("arrow")
    measured = stored.map(
        lambda table: {"length": [row_length(row, processor) for row in table.to_pylist()]},
        batched=True,
        batch_size=16,
        remove_columns=stored.column_names,
        num_proc=num_workers if num_workers > 1 else None,
        desc="measuring lengths",
    )
    return measured.with_format(None)["length"][:]


def row_length(row: Mapping[str, Any], processor: Any) -> int:
    """Length in tokens of one row whose images are encoded (``{"bytes": ..., "path": ...}``)."""
    pictures = (_picture_size(file) for file in row.get("images") or ())
    volumes = (_volume_grid(file) for file in row.get("volumes") or ())
    image_tokens = sum(processor.num_image_tokens(size) for size in pictures if size is not None)
    image_tokens += sum(processor.num_image_tokens(*grid) for grid in volumes if grid is not None)
    texts = [text for text in _texts(row) if isinstance(text, str)]
    text_tokens = (
        sum(map(len, processor.tokenizer(texts, add_special_tokens=False)["input_ids"])) if texts else 0
    )
    # In addition to the texts: <s>, <grd> or <ngrd>, and a marker before each message.
    return 2 + image_tokens + text_tokens + len(texts)


def _texts(row: Mapping[str, Any]) -> Iterable[Any]:
    if "messages" in row:
        return [(message or {}).get("content") for message in row["messages"] or ()]
    if "report" in row:
        return [row["report"]]
    return [*(row.get("targets") or ()), *(row.get("absent") or ())]


def _content(file: Mapping[str, Any], size: int) -> bytes:
    """The first bytes of an encoded image."""
    if file.get("bytes") is not None:
        return file["bytes"][:size]
    with Path(file["path"]).open("rb") as stream:
        return stream.read(size)


def _picture_size(file: Any) -> Triple | None:
    """(1, H, W) of an encoded picture; None if it cannot be read."""
    try:
        source = file["path"] if file["bytes"] is None else BytesIO(file["bytes"])
        with PillowImage.open(source) as image:
            return (1, image.height, image.width)
    except Exception:  # whatever is wrong with it is reported when the row is used
        return None


def _volume_grid(file: Any) -> tuple[Triple, np.ndarray] | None:
    """(D, H, W) and affine of an encoded NIfTI volume, from its header; None if it cannot be read."""
    try:
        content = _content(file, _PREFIX_BYTES)
        if content.startswith(_GZIP_MAGIC):
            content = zlib.decompressobj(_GZIP_WINDOW).decompress(content, _NIFTI2_BYTES)
        second = content[:4] in _NIFTI2_SIZES
        header_class = nib.Nifti2Header if second else nib.Nifti1Header
        header = header_class.from_fileobj(BytesIO(content[: _NIFTI2_BYTES if second else _NIFTI1_BYTES]))
        x, y, z = (*header.get_data_shape(), 1, 1)[:3]
        affine = header.get_best_affine()
        if min(x, y, z) < 1 or not np.isfinite(affine).all() or not np.linalg.det(affine):
            return None
        return (int(z), int(y), int(x)), affine
    except Exception:  # whatever is wrong with it is reported when the row is used
        return None
