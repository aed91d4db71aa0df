"""Images that rows name by path instead of containing them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc
from huggingface_hub import constants

from vividmed.errors import VividMedError

_COLUMNS = ("images", "volumes")


def refuse_outside_files(rows: Any, name: str) -> None:
    """Refuse rows of a repository that name files outside it.

    Otherwise, a downloaded data set could have any image of this machine read and trained on. Data sets in local folders
    are the user's own and may name any file.

    Args:
        rows: what ``datasets.load_dataset`` returned. Streamed rows are not checked.
        name: folder or repository that it was loaded from.

    Raises:
        VividMedError: an image has no content and its path is not in the cache of downloaded files.
    """
    if Path(name).exists():
        return
    for split in rows.values() if isinstance(rows, Mapping) else [rows]:
        if isinstance(split, datasets.Dataset):
            for column in set(_COLUMNS) & set(split.column_names):
                _check(split.data.column(column), column, name)


def _check(values: pa.ChunkedArray, column: str, name: str) -> None:
    caches = [Path(cache).resolve() for cache in (constants.HF_HOME, constants.HF_HUB_CACHE)]
    caches.append(Path(datasets.config.HF_DATASETS_CACHE).resolve())
    for row, path in _named_files(values):
        if path.startswith("hf://"):
            continue
        place = Path(path).resolve()
        if not any(place.is_relative_to(cache) for cache in caches):
            raise VividMedError(
                f"{name}: row {row} names an image outside the data set ({column}: {path[:200]}); store the image's content "
                "in the row, or load the data set from a local folder if it is your own"
            )


def _named_files(values: pa.ChunkedArray) -> Iterator[tuple[int, str]]:
    """Rows and paths of images without content."""
    first = 0
    for chunk in values.chunks:
        storage = chunk.storage if isinstance(chunk, pa.ExtensionArray) else chunk
        if pa.types.is_list(storage.type) or pa.types.is_large_list(storage.type):
            images, owners = pc.list_flatten(storage), pc.list_parent_indices(storage)
            if pa.types.is_struct(images.type):
                named = pc.and_(
                    pc.is_null(pc.struct_field(images, "bytes")), pc.is_valid(pc.struct_field(images, "path"))
                )
                paths = pc.struct_field(images, "path").filter(named).to_pylist()
                yield from zip((first + row for row in owners.filter(named).to_pylist()), paths, strict=True)
        first += len(chunk)
