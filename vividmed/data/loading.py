"""Loads data sets by ``datasets.load_dataset``, with errors in one line, and refuses rows that name foreign files.

A row stores an image as its content, or as the path of a file, which may be anywhere. A data set made by others could
thus have private files of this machine read and trained on. Files outside the data set's folder and the caches of the
Hub are therefore refused, unless the user states that the data set is their own.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from datasets import load_dataset
from datasets.exceptions import DatasetsError
from huggingface_hub.constants import HF_HUB_CACHE

from vividmed.data.image_grids import IMAGE_COLUMNS
from vividmed.data.taxonomy import use_taxonomy_of
from vividmed.errors import VividMedError

_BATCH = 1000
_REMOTE = "hf://"


def load_prepared(
    name: str,
    config: str | None = None,
    *,
    what: str,
    remedy: str = "give a prepared folder or a repository",
    split: str | None = None,
    revision: str | None = None,
    streaming: bool = False,
    allow_outside_images: bool = False,
    row_kinds: Sequence[str] = (),
) -> Any:
    """Load a data set from a folder or the Hub.

    Targets of its own that a folder keeps are added to the taxonomy of this process.

    Args:
        name: folder or repository.
        config: configuration of the repository, if it has several.
        what: what asked for it, such as ``--dataset_name data/amos22``; begins the error.
        remedy: what to do about it; ends the error.
        split: one split; None for a dict of all.
        revision: branch, tag or commit of a repository.
        streaming: read rows while iterating instead of downloading them first.
        allow_outside_images: let rows name image files outside the data set's folder. Streams are checked where their
            rows are read, see :func:`check_row_paths`.
        row_kinds: kinds of rows that are wanted. If the data set has a configuration named after one of them, and
            ``config`` is None, it is taken: the first of them.

    Returns:
        What ``datasets.load_dataset`` returns.

    Raises:
        VividMedError: the data set or split is not found or cannot be read, or a row names an image file outside the
            data set's folder.
    """
    if Path(name).is_file():
        raise VividMedError(f"{what} is a file; {remedy}")
    if Path(name).is_dir():
        use_taxonomy_of(name)
    try:
        if config is None and row_kinds:
            config = _config_of(name, row_kinds, revision)
        loaded = load_dataset(
            name, config, split=split, revision=revision, streaming=streaming, cache_dir=_cache_of(name)
        )
    except (DatasetsError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise VividMedError(f"{what} cannot be loaded ({reason}); {remedy}") from error
    if not streaming and not allow_outside_images:
        for rows in loaded.values() if split is None else [loaded]:
            check_image_paths(rows, name)
    return loaded


def _cache_of(location: str) -> str | None:
    """Cache of a folder as it is now; None for a repository, which ``datasets`` tells apart by itself.

    ``datasets`` finds the cache of a folder with a card by the folder's last name only, and would give the rows of
    another folder of that name, or of the same folder before it was prepared again.
    """
    folder = Path(location)
    if not folder.is_dir():
        return None
    digest = hashlib.sha256(str(folder.resolve()).encode(errors="surrogateescape"))
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts):
            status = path.stat()
            digest.update(
                f"\n{path.relative_to(folder)} {status.st_size} {status.st_mtime_ns}".encode(
                    errors="surrogateescape"
                )
            )
    return str(Path(datasets.config.HF_DATASETS_CACHE) / "folders" / digest.hexdigest()[:16])


def _config_of(location: str, row_kinds: Sequence[str], revision: str | None) -> str | None:
    """The first of some kinds of rows after which a configuration of a data set is named; None if there is none."""
    names = datasets.get_dataset_config_names(location, revision=revision)
    return next((kind for kind in row_kinds if kind in names), None)


def check_image_paths(rows: datasets.Dataset, location: str) -> None:
    """Refuse a data set whose rows name image files outside its folder; no image is read.

    Args:
        rows: rows of the data set.
        location: folder or Hub repository that they were loaded from.

    Raises:
        VividMedError: a row names such a file; the message names the row.
    """
    roots = image_roots(location)
    for column in IMAGE_COLUMNS:
        if column not in rows.column_names:
            continue
        ids = ["id"] if "id" in rows.column_names else []
        start = 0
        for table in rows.select_columns([*ids, column]).with_format("arrow").iter(batch_size=_BATCH):
            for index, place, path in _named_files(table[column].combine_chunks()):
                if not _is_inside(path, roots):
                    name = table["id"][index].as_py() if ids else start + index
                    raise _outside(location, name, f"{column}[{place}]", path)
            start += len(table)


def check_row_paths(row: Mapping[str, Any], location: str, roots: Sequence[Path]) -> None:
    """Refuse one row with encoded images that names an image file outside the data set's folder.

    Raises:
        VividMedError: the row names such a file.
    """
    for column in IMAGE_COLUMNS:
        for place, file in enumerate(row.get(column) or ()):
            path = (
                None if not isinstance(file, Mapping) or file.get("bytes") is not None else file.get("path")
            )
            if path and not _is_inside(path, roots):
                raise _outside(location, row.get("id"), f"{column}[{place}]", path)


def image_roots(location: str) -> list[Path]:
    """Folders that rows of a data set may name files in: its own, and the caches of the Hub."""
    own = Path(location)
    caches = [
        Path(datasets.config.HF_DATASETS_CACHE),
        Path(datasets.config.DOWNLOADED_DATASETS_PATH),
        Path(HF_HUB_CACHE),
    ]
    return [path.resolve() for path in ([own] if own.exists() else []) + caches]


def _named_files(column: pa.Array) -> Iterator[tuple[int, int, str]]:
    """Row, place in its list, and path of every image that is stored as a path."""
    if not pa.types.is_list(column.type) and not pa.types.is_large_list(column.type):
        return
    if not pa.types.is_struct(column.type.value_type):
        return
    names = [field.name for field in column.type.value_type]
    if not {"bytes", "path"} <= set(names):
        return
    flat = column.flatten()
    paths, stored = flat.field("path"), flat.field("bytes").is_valid()
    if stored.true_count == len(stored):
        return
    parents = pa.compute.list_parent_indices(column)
    places: dict[int, int] = {}
    for parent, path, is_stored in zip(
        parents.to_pylist(), paths.to_pylist(), stored.to_pylist(), strict=True
    ):
        place = places[parent] = places.get(parent, -1) + 1
        if not is_stored and path:
            yield parent, place, path


def _is_inside(path: str, roots: Sequence[Path]) -> bool:
    if path.startswith(_REMOTE):
        return True
    try:
        resolved = Path(path).resolve()
    except (OSError, ValueError, RuntimeError):
        return True  # not a file of this machine: reading it fails and names the row
    return any(resolved.is_relative_to(root) for root in roots)


def _outside(location: str, row: Any, place: str, path: str) -> VividMedError:
    return VividMedError(
        f"{location}: row {row}: {place} names the file {path} outside the data set's folder; embed the image, or pass "
        "--allow_outside_images if the data set is your own"
    )
