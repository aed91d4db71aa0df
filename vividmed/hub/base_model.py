"""The Hub id of the model that another one was made from, as far as it is known.

A local folder says nothing to others, and the Hub refuses a card that names one. A folder that was published keeps a
record of where, so that what is trained from it later names the published model.
"""

import json
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from vividmed.errors import VividMedError
from vividmed.files import write_atomically

_RECORD = ".published.json"


def is_hub_id(text: str) -> bool:
    """Whether a text has the form ``namespace/name`` of a repository on the Hub."""
    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return text.count("/") == 1


def find_base_model_id(source: str | Path | None, *, stated: str | None = None) -> str | None:
    """Hub id of the model that a run starts from.

    Args:
        source: local folder or Hub id that the weights are loaded from; None for random weights.
        stated: Hub id that the user gives.

    Returns:
        The id stated, that of the repository, or the one a local folder was published under; None if unknown.

    Raises:
        VividMedError: the id stated is not one.
    """
    if stated is not None:
        if not is_hub_id(stated):
            raise VividMedError(
                f"--base_model_id {stated}: is not the id of a model on the Hub; write namespace/name"
            )
        return stated
    if source is None:
        return None
    if Path(source).exists():
        return _read_record(Path(source))
    return str(source) if is_hub_id(str(source)) else None


def record_publication(folder: Path, repo_id: str, revision: str) -> None:
    """Note where the weights in a folder were published; a folder that cannot be written goes without."""
    content = {"repo_id": repo_id, "revision": revision, "weights": _weights(folder)}
    try:
        write_atomically(folder / _RECORD, json.dumps(content, indent=2) + "\n")
    except VividMedError:
        return


def _read_record(folder: Path) -> str | None:
    try:
        content = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        repo_id, weights = content["repo_id"], content["weights"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    # Weights that were written after the publication are other weights.
    return repo_id if weights == _weights(folder) and is_hub_id(repo_id) else None


def _weights(folder: Path) -> dict[str, Any]:
    files = sorted(folder.glob("*.safetensors"))
    return {path.name: [path.stat().st_size, path.stat().st_mtime_ns] for path in files}
