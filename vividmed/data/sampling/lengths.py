"""Lengths of rows in tokens, from the sizes of their images and their text; no pixel is decoded."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from vividmed.data import image_grids
from vividmed.data.image_grids import IMAGE_COLUMNS, canonical_size, encoded_grid
from vividmed.data.sampling.token_counts import token_counter
from vividmed.triples import Triple

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
        return _measure(rows, IMAGE_COLUMNS, processor, _READ_BATCH, num_workers)
    lengths = _measure(rows, (image_grids.COLUMN,), processor, _STATED_BATCH, num_workers)
    unknown = [index for index, length in enumerate(lengths) if length == _UNKNOWN]
    if unknown:
        read = _measure(rows.select(unknown), IMAGE_COLUMNS, processor, _READ_BATCH, num_workers)
        for index, length in zip(unknown, read, strict=True):
            lengths[index] = length
    return lengths


def _measure(
    rows: Dataset, columns: Sequence[str], processor: Any, batch_size: int, num_workers: int
) -> list[int]:
    used = [name for name in (*columns, *_TEXTS) if name in rows.column_names]
    stored = rows.select_columns(used).with_format("arrow")
    measured = stored.map(
        lambda table: {"length": _table_lengths(table, processor)},
        batched=True,
        batch_size=batch_size,
        remove_columns=stored.column_names,
        num_proc=num_workers if num_workers > 1 else None,
        desc="measuring lengths",
    )
    return measured.with_format(None)["length"][:]


def _table_lengths(table: pa.Table, processor: Any) -> np.ndarray:
    """Lengths of the rows of a table; -1 for a row without its images whose grids are null."""
    lengths = np.full(table.num_rows, 2)  # <s>, and <grd> or <ngrd>
    count = token_counter(processor.tokenizer)
    for rows, texts in _texts(table):
        # A marker stands before each message.
        np.add.at(lengths, rows, count(texts) + 1)
    stated = image_grids.COLUMN in table.column_names
    for row, size in _stated_sizes(table) if stated else _read_sizes(table):
        lengths[row] += processor.num_image_tokens(size)
    if stated:
        lengths[table[image_grids.COLUMN].is_null().to_numpy()] = _UNKNOWN
    return lengths


def _texts(table: pa.Table) -> Iterator[tuple[np.ndarray, pa.Array]]:
    """The texts of a table, a column at a time, and the row of each text."""
    kinds = (("messages",), ("report",), ("targets", "absent"))
    names = next((names for names in kinds if names[0] in table.column_names), ())
    for name in filter(table.column_names.__contains__, names):
        rows, values = _flat(table[name])
        if pa.types.is_struct(values.type) and values.type.get_field_index("content") >= 0:
            values = pc.struct_field(values, "content")
        if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
            values = values.cast(pa.string())
            known = values.is_valid()
            yield rows[known.to_numpy(zero_copy_only=False)], values.filter(known)


def _flat(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """The values of a column, or of all its lists, and the row of each."""
    values = column.combine_chunks()
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        return pc.list_parent_indices(values).to_numpy(), values.flatten()
    return np.arange(len(values)), values


def _stated_sizes(table: pa.Table) -> Iterable[tuple[int, Triple]]:
    """(D, H, W) in canonical orientation of each image as its row states it, and the number of the row."""
    rows, grids = _flat(table[image_grids.COLUMN])
    if not pa.types.is_struct(grids.type):  # all are null, and the columns have no declared types
        return ()
    sizes, spacings = (
        grids.field(name).flatten().to_numpy().reshape(-1, 3).tolist() for name in ("size", "spacing")
    )
    directions = grids.field("directions").to_pylist()
    return zip(rows.tolist(), map(canonical_size, sizes, spacings, directions), strict=True)


def _read_sizes(table: pa.Table) -> Iterator[tuple[int, Triple]]:
    """The same of each image that can be read, from its header."""
    for number, row in enumerate(table.to_pylist()):
        for grid in (encoded_grid(file) for name in IMAGE_COLUMNS for file in row.get(name) or ()):
            if grid is not None:
                yield number, canonical_size(**grid)
