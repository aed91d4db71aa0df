"""Lengths of rows in tokens, from the sizes of their images and their text; no pixel is decoded."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from datasets import Dataset

from vividmed.data import image_grids
from vividmed.data.image_grids import canonical_size, encoded_grid
from vividmed.data.sampling.token_counts import token_counter

_IMAGES = ("images", "volumes")
_TEXTS = ("messages", "report", "targets", "absent")
_STATED_BATCH, _READ_BATCH = 1000, 16
_UNKNOWN = -1


def measure_lengths(rows: Dataset, processor: Any, *, num_workers: int = 1) -> list[int]:
    """Length in tokens of each row's sequence: its images and its text.

    Sizes of images are taken from the column ``grids``. Only where it is missing or null, the headers of the images are
    read. The result is kept in the data set's cache. An image or text that cannot be read counts as nothing: whether
    such a row is skipped or stops the run is decided when it is used.

    Args:
        rows: rows of any kind. What localization rows will say is not known before it is drawn; the names of their
            targets stand for it.
        processor: a ``VividMedProcessor``.
        num_workers: number of processes.
    """
    if image_grids.COLUMN not in rows.column_names:
        return _measure(rows, _IMAGES, processor, _READ_BATCH, num_workers)
    lengths = _measure(rows, (image_grids.COLUMN,), processor, _STATED_BATCH, num_workers)
    unknown = [index for index, length in enumerate(lengths) if length == _UNKNOWN]
    if unknown:
        read = _measure(rows.select(unknown), _IMAGES, processor, _READ_BATCH, num_workers)
        for index, length in zip(unknown, read, strict=True):
            lengths[index] = length
    return lengths


def row_length(row: Mapping[str, Any], processor: Any) -> int:
    """Length in tokens of one row, whose images are encoded (``{"bytes": ..., "path": ...}``)."""
    (length,) = _row_lengths([row], processor)
    if length == _UNKNOWN:
        (length,) = _row_lengths([{**row, image_grids.COLUMN: _read_grids(row)}], processor)
    return length


def _measure(
    rows: Dataset, columns: Sequence[str], processor: Any, batch_size: int, num_workers: int
) -> list[int]:
    used = [name for name in (*columns, *_TEXTS) if name in rows.column_names]
    stored = rows.select_columns(used).with_format("arrow")
    measured = stored.map(
        lambda table: {"length": _row_lengths(table.to_pylist(), processor)},
        batched=True,
        batch_size=batch_size,
        remove_columns=stored.column_names,
        num_proc=num_workers if num_workers > 1 else None,
        desc="measuring lengths",
    )
    return measured.with_format(None)["length"][:]


def _row_lengths(rows: Sequence[Mapping[str, Any]], processor: Any) -> list[int]:
    """Lengths of some rows; -1 for a row without its images whose grids are null."""
    texts = [[text for text in _texts(row) if isinstance(text, str)] for row in rows]
    counts = iter(token_counter(processor.tokenizer)([text for of_row in texts for text in of_row]))
    lengths = []
    for row, of_row in zip(rows, texts, strict=True):
        text_tokens = sum(next(counts) for _ in of_row)
        grids = row.get(image_grids.COLUMN)
        if grids is None:
            if image_grids.COLUMN in row:
                lengths.append(_UNKNOWN)
                continue
            grids = _read_grids(row)
        image_tokens = sum(processor.num_image_tokens(canonical_size(grid)) for grid in grids)
        # In addition to the texts: <s>, <grd> or <ngrd>, and a marker before each message.
        lengths.append(2 + image_tokens + text_tokens + len(of_row))
    return lengths


def _read_grids(row: Mapping[str, Any]) -> list[image_grids.ImageGrid]:
    """Grids of the images that can be read, from their headers."""
    grids = (encoded_grid(file) for name in _IMAGES for file in row.get(name) or ())
    return [grid for grid in grids if grid is not None]


def _texts(row: Mapping[str, Any]) -> Iterable[Any]:
    if "messages" in row:
        return [(message or {}).get("content") for message in row["messages"] or ()]
    if "report" in row:
        return [row["report"]]
    return [*(row.get("targets") or ()), *(row.get("absent") or ())]
