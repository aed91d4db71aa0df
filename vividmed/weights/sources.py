"""Checkpoints that users name: a local file or folder, or a repository on the Hub, which is downloaded."""

from fnmatch import fnmatchcase
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from vividmed.errors import VividMedError
from vividmed.hub.base_model import is_hub_id
from vividmed.models.configuration import one_line

_SETTINGS = ("*.json", "*.model", "*.txt", "*.jinja", "README.md")
_WEIGHTS = (("*.safetensors",), ("*.bin",), ("*.pth", "*.pt", "*.ckpt"))


def local_place(place: str, option: str, *, weights: bool = True) -> Path:
    """Local path of what an option names, after a download if it is a repository.

    Args:
        place: file or folder, or ``namespace/name`` of a repository.
        option: the option that named it, which begins errors.
        weights: download the weights too, in safetensors where the repository has them.

    Raises:
        VividMedError: there is nothing of that name, or the Hub refuses or cannot be reached.
    """
    path = Path(place)
    if path.exists():
        return path
    if not is_hub_id(place):
        raise VividMedError(
            f"{option} {place}: no such file or folder; give one, or a repository on the Hub as namespace/name"
        )
    try:
        patterns = list(_SETTINGS)
        if weights:
            files = HfApi().list_repo_files(place)
            forms = (form for form in _WEIGHTS if any(fnmatchcase(f, p) for f in files for p in form))
            patterns += next(forms, ())
        return Path(snapshot_download(place, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise VividMedError(
            f"{option} {place}: is no local folder, and cannot be had from the Hub ({one_line(error)[:160]}); check the "
            "name, your access and the network"
        ) from error


def display_name(place: str | Path) -> str:
    """Hub id, or the name of a local file or folder: its path says nothing to others."""
    return Path(place).resolve().name if Path(place).exists() else str(place)
