"""What a client of the test Hub does; see :mod:`tests.hub.client`.

Imports are inside the functions: a client that only loads data must show that it needs nothing of this project.
"""

import os
import sys
from dataclasses import asdict
from typing import Any


def publish_dataset(folder: str, repo_id: str, terms: dict[str, str], **options: Any) -> dict[str, str]:
    from vividmed.data.terms import DatasetTerms
    from vividmed.hub.publish import publish_dataset

    return asdict(publish_dataset(folder, repo_id, terms=DatasetTerms(**terms), **options))


def publish_model(folder: str, repo_id: str, **options: Any) -> dict[str, str]:
    from vividmed.hub.publish import publish_model

    return asdict(publish_model(folder, repo_id, **options))


def start(action: str, arguments: dict[str, Any]) -> int:
    """Do something in a child process, which saves importing everything anew; gives its number, to kill it."""
    child = os.fork()
    if child == 0:
        try:
            globals()[action](**arguments)
        finally:
            os._exit(0)
    return child


def as_user(token: str | None, action: str, arguments: dict[str, Any]) -> Any:
    """Do something with the token of another user, or with none."""
    own = os.environ.pop("HF_TOKEN")
    try:
        if token is not None:
            os.environ["HF_TOKEN"] = token
        return globals()[action](**arguments)
    finally:
        os.environ["HF_TOKEN"] = own


def offline(action: str, arguments: dict[str, Any]) -> Any:
    """Do something as if HF_HUB_OFFLINE had been set at the start."""
    from huggingface_hub import constants

    constants.HF_HUB_OFFLINE = True
    try:
        return globals()[action](**arguments)
    finally:
        constants.HF_HUB_OFFLINE = False


def command(*, arguments: list[str]) -> dict[str, Any]:
    """Exit status and output of ``data_scripts/publish.py``."""
    import contextlib
    import io

    from data_scripts.publish import main

    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        status = main(arguments)
    return {"status": status, "output": output.getvalue(), "errors": errors.getvalue()}


def pinned_revision(repo_id: str, **options: Any) -> str:
    from vividmed.hub.repository import HubRepository

    return HubRepository(repo_id, "dataset").pinned_revision(**options)


def load(repo_id: str, split: str, *, streaming: bool = False, revision: str | None = None) -> dict[str, Any]:
    """What the rows hold once their images are decoded by plain ``datasets``."""
    from datasets import load_dataset

    rows = list(load_dataset(repo_id, split=split, streaming=streaming, revision=revision))
    return {
        "ids": [row["id"] for row in rows],
        "affines": [volume.affine.tolist() for row in rows for volume in row["volumes"]],
        "sums": [float(volume.get_fdata().sum()) for row in rows for volume in row["volumes"]],
        "picture_sizes": [picture.size for row in rows for picture in row["images"]],
        "masks": [len(row["masks"]) for row in rows],
        "project_imported": "vividmed" in sys.modules,
    }


def download(repo_id: str, path: str) -> int:
    """Size in bytes of a file of a model repository."""
    from pathlib import Path

    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(repo_id, path)).stat().st_size
