"""A repository on the Hub: created private, filled with bounded retries, opened last; failures say what to do."""

import glob
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from huggingface_hub import HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from vividmed.data.terms import Visibility
from vividmed.errors import VividMedError

logger = logging.getLogger(__name__)

RepoType = Literal["dataset", "model"]
_T = TypeVar("_T")

_ATTEMPTS = 5
_FIRST_WAIT = 2.0  # seconds; doubled after each attempt
_MOST_CHARACTERS = 400
_PASSING_STATUS = (408, 429, 500, 502, 503, 504)


class HubRepository:
    """One repository, reached through ``huggingface_hub`` with its login and endpoint settings.

    Args:
        repo_id: ``namespace/name``.
        repo_type: ``dataset`` or ``model``.
    """

    def __init__(self, repo_id: str, repo_type: RepoType) -> None:
        self.repo_id = repo_id
        self.repo_type = repo_type
        self._api = HfApi()

    def create(self) -> None:
        """Create the repository, private, unless it exists."""
        self._persist(
            lambda: self._api.create_repo(self.repo_id, repo_type=self.repo_type, private=True, exist_ok=True)
        )

    def exists(self) -> bool:
        """Whether the repository is there and this account may see it."""
        return self._persist(lambda: self._api.repo_exists(self.repo_id, repo_type=self.repo_type))

    def visibility(self) -> Visibility:
        """Who can read it now; ``gated`` means that a person approves each reader."""
        info = self._persist(lambda: self._api.repo_info(self.repo_id, repo_type=self.repo_type))
        if info.private:
            return "private"
        # Automatic approval opens the files to everyone who asks.
        return "gated" if info.gated == "manual" else "public"

    def require_approval(self) -> None:
        """Let a person decide on every request for access."""
        self._persist(
            lambda: self._api.update_repo_settings(self.repo_id, repo_type=self.repo_type, gated="manual")
        )

    def open(self) -> None:
        """Let everyone see the repository, and read it unless access is gated."""
        self._persist(
            lambda: self._api.update_repo_settings(
                self.repo_id, repo_type=self.repo_type, visibility="public"
            )
        )

    def upload(self, folder: Path, names: Sequence[str], *, replaced: Sequence[str]) -> str:
        """Send the files that the Hub does not have yet.

        ``upload_folder`` compares every file with the repository by its hash, so that a second call sends only what
        is missing, however the first one ended. It commits large folders in parts.

        Args:
            folder: folder of the files.
            names: paths to send, relative to ``folder``, with forward slashes.
            replaced: patterns of files that are deleted from the repository when they are not among ``names``, such
                as the shards of an earlier upload.

        Returns:
            Hash of the commit.
        """
        commit = self._persist(
            lambda: self._api.upload_folder(
                repo_id=self.repo_id,
                repo_type=self.repo_type,
                folder_path=folder,
                allow_patterns=[glob.escape(name) for name in names],
                delete_patterns=list(replaced),
                commit_message="Upload with vividmed",
            )
        )
        return commit.oid

    def pinned_revision(self, revision: str = "main") -> str:
        """Hash of the commit that a branch or tag points to now.

        Loading by the hash always gives the same files, whatever is pushed later.
        """
        info = self._persist(
            lambda: self._api.repo_info(self.repo_id, repo_type=self.repo_type, revision=revision)
        )
        return str(info.sha)

    def _persist(self, action: Callable[[], _T]) -> _T:
        """Call the Hub, retry after temporary failures, and turn the last failure into an instruction.

        Every action used here is safe to repeat if an earlier attempt succeeded and only its answer was lost.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return action()
            except (HTTPError, OSError, RuntimeError, ValueError) as error:
                if attempt == _ATTEMPTS or not _is_passing(error):
                    raise VividMedError(f"{self.repo_id}: {_instruction(error, attempt)}") from error
                wait = _FIRST_WAIT * 2 ** (attempt - 1)
                logger.warning("%s: %s; next attempt in %.0f s", self.repo_id, _first_line(error), wait)
                time.sleep(wait)
        raise AssertionError("unreachable: the last attempt returns or raises")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it was raised from; the client wraps failures of single files."""
    while error is not None:
        yield error
        error = error.__cause__


def _is_passing(error: Exception) -> bool:
    if isinstance(error, OfflineModeIsEnabled):
        return False
    for cause in _causes(error):
        if isinstance(cause, HfHubHTTPError):
            return cause.response.status_code in _PASSING_STATUS
        if isinstance(cause, HTTPError | ConnectionError | TimeoutError):
            return True
    return False


def _instruction(error: Exception, attempts: int) -> str:
    """One line that says what happened and what to do."""
    status = next((e.response.status_code for e in _causes(error) if isinstance(e, HfHubHTTPError)), None)
    reason = _first_line(error)
    if isinstance(error, HFValidationError):
        return f"is not the name of a repository ({reason}); write namespace/name"
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, so the Hub cannot be reached; unset it and run again"
    if isinstance(error, RevisionNotFoundError):
        return "there is no such revision; give a branch, a tag or a commit hash"
    if status == 401:
        return (
            "the Hub does not accept the login; run `hf auth login` or set HF_TOKEN to a token with write permission, "
            "then run again"
        )
    if status == 403:
        return (
            "this account may not write there; use one of your own namespaces, or a token with write permission for it, "
            "then run again"
        )
    if isinstance(error, RepositoryNotFoundError):
        return "there is no such repository, or this account may not see it; check the name and the login"
    if _is_passing(error):
        return (
            f"the Hub could not be reached in {attempts} attempts (last: {reason}); the local files are intact and "
            "what was sent is kept; run the same command again to send the rest"
        )
    return f"the Hub refuses ({reason}); correct that and run again"


def _first_line(error: Exception) -> str:
    """The innermost reason, shortened to one line."""
    reason = list(_causes(error))[-1]
    for cause in _causes(error):
        if isinstance(cause, HfHubHTTPError):
            reason = cause
            break
    if isinstance(reason, HfHubHTTPError) and reason.server_message:
        message = " ".join(reason.server_message.split())
        return f"status {reason.response.status_code}, {message}"[:_MOST_CHARACTERS]
    lines = [line.strip() for line in str(reason).splitlines() if line.strip()]
    # The first line of some is a heading.
    text = " ".join(lines[:2] if lines and lines[0].endswith(":") else lines[:1])
    return text[:_MOST_CHARACTERS] or type(reason).__name__
