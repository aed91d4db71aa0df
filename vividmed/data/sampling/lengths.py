"""Lengths of rows in tokens, without decoding a pixel."""

import gzip
import struct
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from datasets import Dataset
from PIL import Image as PillowImage

from vividmed.triples import Triple

_NIFTI_HEADER_BYTES = 352
_IMAGES = ("images", "volumes")
_TEXTS = ("messages", "report", "targets", "absent")


def measure_lengths(rows: Dataset, processor: Any, *, num_workers: int = 1) -> list[int]:
    """Tokens of each row's sequence: those of its images, computed from the files' headers, and of its text.

    The result is kept in the data set's cache. An image whose header cannot be read counts as nothing; what happens
    to such a row is decided when it is used.

    Args:
        rows: of any kind. What will be said about localization rows is not known yet; the names of their targets
            stand for it.
        processor: a ``VividMedProcessor``.
        num_workers: processes to use.
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
    """Tokens of one row whose images are still encoded (``{"bytes": ..., "path": ...}``)."""
    shapes = [_picture_shape(image) for image in row["images"]] + [
        _volume_shape(volume) for volume in row["volumes"]
    ]
    image_tokens = sum(processor.num_image_tokens(shape) for shape in shapes if shape is not None)
    texts = _texts(row)
    text_tokens = (
        sum(map(len, processor.tokenizer(texts, add_special_tokens=False)["input_ids"])) if texts else 0
    )
    # Beside the texts: <s>, <grd> or <ngrd>, and a marker before each message.
    return 2 + image_tokens + text_tokens + len(texts)


def _texts(row: Mapping[str, Any]) -> list[str]:
    if "messages" in row:
        return [message["content"] for message in row["messages"]]
    return [row["report"]] if "report" in row else [*row["targets"], *row["absent"]]


def _content(file: Mapping[str, Any], size: int = -1) -> bytes:
    if file["bytes"] is not None:
        return file["bytes"] if size < 0 else file["bytes"][:size]
    with Path(file["path"]).open("rb") as stream:
        return stream.read(size)


def _picture_shape(file: Mapping[str, Any]) -> Triple | None:
    """(1, H, W) of an encoded picture."""
    try:
        with PillowImage.open(BytesIO(_content(file))) as image:
            return (1, image.height, image.width)
    except (OSError, SyntaxError, ValueError):
        return None


def _volume_shape(file: Mapping[str, Any]) -> Sequence[int] | None:
    """(D, H, W) of an encoded NIfTI volume, as its header says; axes are stored x, y, z."""
    try:
        content = _content(file, 4096 + _NIFTI_HEADER_BYTES)
        if content[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=BytesIO(content)) as stream:
                content = stream.read(_NIFTI_HEADER_BYTES)
        order = "<" if struct.unpack_from("<i", content, 0)[0] == 348 else ">"
        return struct.unpack_from(f"{order}8h", content, 40)[3:0:-1]
    except (OSError, EOFError, struct.error):
        return None
