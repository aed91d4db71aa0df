"""Files of a local folder or a Hub repository, by the one name that users give for either."""

from pathlib import Path
from typing import Literal

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError


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
    try:
        return Path(hf_hub_download(str(place), name, repo_type=repo_type, revision=revision))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError):
        return None
