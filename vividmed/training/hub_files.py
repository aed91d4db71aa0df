"""Files of a local folder or a Hub repository, by the one name that users give for either."""

import re
from pathlib import Path
from typing import Literal

from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from vividmed.data.taxonomy import use_taxonomy
from vividmed.data.taxonomy_files import TAXONOMY_FILE
from vividmed.errors import VividMedError

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def check_place(place: str | Path, what: str) -> None:
    """Check that a name is a local folder or can be a Hub repository, before the Hub is asked for several files.

    Args:
        place: local folder, or ``namespace/name`` of a repository.
        what: what named it, such as ``--model_name_or_path``; begins the error.

    Raises:
        VividMedError: it is neither.
    """
    if not Path(place).is_dir() and not _REPOSITORY.fullmatch(str(place)):
        raise VividMedError(
            f"{what} {place}: no such folder; give the folder of a model, or a repository as namespace/name"
        )


def find_file(
    place: str | Path,
    name: str,
    *,
    repo_type: Literal["model", "dataset"] = "model",
    revision: str | None = None,
) -> Path | None:
    """Local path of a file in a folder or Hub repository.

    Args:
        place: local folder, or ``namespace/name`` of a repository.
        name: file name at the top level.
        repo_type: type of the repository.
        revision: branch, tag or commit of a repository.

    Returns:
        The path, after a download if necessary; None if there is no such file or the Hub cannot be reached.
    """
    if Path(place).is_dir():
        path = Path(place) / name
        return path if path.is_file() else None
    if not _REPOSITORY.fullmatch(str(place)):
        # A mistyped folder would be asked for again and again.
        return None
    try:
        return Path(hf_hub_download(str(place), name, repo_type=repo_type, revision=revision))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError):
        return None


def use_taxonomy_of_model(place: str | Path) -> None:
    """Add the targets that a model was trained on beyond those of the package, if it keeps any.

    Args:
        place: local folder, or ``namespace/name`` of a repository.

    Raises:
        VividMedError: they contradict targets that are in use.
    """
    path = find_file(place, TAXONOMY_FILE)
    if path is not None:
        use_taxonomy(path)


def model_folder(place: str | Path, *, revision: str | None = None) -> Path:
    """Local folder with the weights and configuration of a model, after a download if necessary.

    Args:
        place: local folder, or ``namespace/name`` of a repository.
        revision: branch, tag or commit of a repository.

    Raises:
        VividMedError: there is no such folder or repository, or the Hub cannot be reached.
    """
    check_place(place, "base model")
    if Path(place).is_dir():
        return Path(place)
    try:
        return Path(
            snapshot_download(str(place), revision=revision, allow_patterns=["*.safetensors", "*.json"])
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise VividMedError(
            f"{place}: cannot be downloaded ({' '.join(str(error).split())[:200]}); check the name, the login and the network"
        ) from error
