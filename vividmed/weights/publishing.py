"""Where a made model goes: a folder of the user's, a repository on the Hub, or both."""

import shutil
from collections.abc import Callable
from pathlib import Path

from huggingface_hub.constants import HF_HOME

from vividmed.errors import VividMedError
from vividmed.hub.base_model import is_hub_id
from vividmed.hub.publish import publish_model
from vividmed.weights.folder import REPORT_FILE, Result


def into_output(
    output: Path | None,
    repo_id: str | None,
    make: Callable[..., Result],
    *,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Make a model and publish it, privately, if a repository is named.

    Args:
        output: folder to write; None for one in the cache of the Hub's client, which is removed once it is published.
        repo_id: repository to publish to, or None.
        make: writes the model into a folder, its first argument, and takes ``say``.
        say: is told what was done.

    Raises:
        VividMedError: neither is named, the repository's name is not one, or the upload fails; the folder then stays.
    """
    if output is None and repo_id is None:
        raise VividMedError("--output is missing: name a folder to write, or a repository with --push-to-hub")
    if repo_id is not None and not is_hub_id(repo_id):
        raise VividMedError(f"--push-to-hub {repo_id}: is not the name of a repository; write namespace/name")
    folder = output
    if folder is None:
        folder = Path(HF_HOME) / "vividmed" / str(repo_id).replace("/", "--")
        # What an earlier run could not upload may have been made of something else.
        shutil.rmtree(folder, ignore_errors=True)
    result = make(folder, say=say)
    say(f"tensors: {result.report.summary()}; each is named in {REPORT_FILE}")
    say(f"model: {folder} ({result.bytes / 1e9:.2f} GB)")
    if repo_id is None:
        return
    published = publish_model(folder, repo_id)
    say(f"{published.repo_id} is {published.visibility} at commit {published.revision}")
    say(f"load exactly this state: {published.loading_line}")
    if output is None:
        shutil.rmtree(folder)
