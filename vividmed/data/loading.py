"""``load_dataset`` with an error of one line."""

from typing import Any

from datasets import load_dataset
from datasets.exceptions import DatasetNotFoundError

from vividmed.data.outside_files import refuse_outside_files
from vividmed.errors import VividMedError


def load_prepared(
    name: str,
    config: str | None = None,
    *,
    what: str,
    remedy: str = "give a prepared folder or a repository",
    split: str | None = None,
    revision: str | None = None,
    streaming: bool = False,
) -> Any:
    """Load a data set from a folder or the Hub.

    Args:
        name: folder or repository.
        config: configuration of the repository.
        what: what asked for it, such as ``--dataset_name data/amos22``; begins the error.
        remedy: what to do about it; ends the error.
        split: one split; None for a dict of all.
        revision: branch, tag or commit of a repository.
        streaming: read rows as they are needed.

    Returns:
        What ``datasets.load_dataset`` returns.

    Raises:
        VividMedError: the data set or split is not found, cannot be read, or names images outside itself.
    """
    try:
        rows = load_dataset(name, config, split=split, revision=revision, streaming=streaming)
    except (DatasetNotFoundError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise VividMedError(f"{what} cannot be loaded ({reason}); {remedy}") from error
    refuse_outside_files(rows, name)
    return rows
