"""A DICOMweb server, with retries and errors of one line that name no patient."""

import contextlib
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
from dicomweb_client.api import DICOMwebClient
from pydicom.dataset import Dataset

from vividmed.errors import VividMedError

T = TypeVar("T")

_PASSING = frozenset([408, 429, 500, 502, 503, 504])
"""Statuses after which a request is tried again."""
_REASONS = {
    401: "it does not accept the token, or asks for one; set the environment variable DICOMWEB_TOKEN",
    403: "the token has no right to do this; ask for it at the archive",
    404: "it has no such service or object; check the URL and the UID",
    413: "the object is larger than it accepts; ask for a higher limit at the archive",
}
_NOT_DICOMWEB = "the answer is not DICOMweb; check the URL"
_READ_CHUNK = 1 << 20
_ONE_REQUEST = 1 << 40
"""Bytes above which dicomweb-client sends in chunks, which many archives do not take."""


class TokenError(VividMedError):
    """An archive does not accept the token; it may have expired."""


@dataclass(frozen=True)
class Series:
    """A series as the archive lists it.

    Attributes:
        study: StudyInstanceUID.
        uid: SeriesInstanceUID.
        modality: such as ``"CT"``.
        instances: SOPInstanceUIDs, sorted.
    """

    study: str
    uid: str
    modality: str
    instances: tuple[str, ...]


class Pacs:
    """An archive that speaks DICOMweb.

    Args:
        url: of its DICOMweb service, such as ``http://localhost:8042/dicom-web``.
        token: bearer token.
        attempts: how often a request is tried.
        wait: seconds before the second attempt; doubled before each further one.
        timeout: seconds to wait for an answer to begin.

    Raises:
        VividMedError: the URL is not one of http or https.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        attempts: int = 5,
        wait: float = 1.0,
        timeout: float = 60.0,
    ):
        parts = _split(url)
        self.name = f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"
        """The URL without user and password."""
        self.attempts = attempts
        self.wait = wait
        session = requests.Session()
        if parts.username:
            session.auth = (parts.username, parts.password or "")
        if token:
            session.headers["Authorization"] = f"Bearer {token}"
        self._client = DICOMwebClient(
            self.name.rstrip("/"), session=session, chunk_size=_READ_CHUNK, timeout=timeout
        )
        self._client.set_http_retry_params(retry=False)

    def find_studies(self, filters: dict[str, str] | None = None) -> list[str]:
        """UIDs of studies.

        Args:
            filters: attributes and the values that they must have, such as ``{"StudyDate": "20260101-"}``.
        """
        found = self._search(
            "studies",
            "StudyInstanceUID",
            lambda offset: self._client.search_for_studies(search_filters=filters or {}, offset=offset),
        )
        return sorted(found)

    def find_series(self, study: str) -> list[Series]:
        """Series of a study with their instances, in the order of their UIDs."""
        found = self._search(
            "series",
            "SeriesInstanceUID",
            lambda offset: self._client.search_for_series(study, offset=offset),
        )
        series = [
            Series(study, uid, str(one.get("Modality", "")), self.find_instances(study, uid))
            for uid, one in found.items()
        ]
        return sorted(series, key=lambda one: one.uid)

    def find_instances(self, study: str, series: str | None = None) -> tuple[str, ...]:
        """UIDs of the instances of a study, or of one of its series."""
        found = self._search(
            "instances",
            "SOPInstanceUID",
            lambda offset: self._client.search_for_instances(study, series, offset=offset),
        )
        return tuple(sorted(found))

    def fetch_series(self, series: Series, folder: Path) -> None:
        """Write the files of a series into a folder.

        Raises:
            VividMedError: an instance is missing, or a file cannot be written.
        """

        def fetch() -> set[str]:
            fetched: set[str] = set()
            for dataset in self._client.iter_series(series.study, series.uid):
                folder.mkdir(parents=True, exist_ok=True)
                dataset.save_as(folder / f"{len(fetched):05d}.dcm", enforce_file_format=True)
                fetched.add(str(dataset.SOPInstanceUID))
            if missing := set(series.instances) - fetched:
                raise requests.ConnectionError(f"{len(missing)} of {len(series.instances)} instances missing")
            return fetched

        try:
            self._try("fetch a series", fetch)
        except OSError as error:
            raise VividMedError(f"{folder}: cannot be written ({error.strerror or error})") from error

    def fetch_instance(self, study: str, series: str, instance: str) -> Dataset:
        """One instance."""
        return self._try("fetch an instance", lambda: self._client.retrieve_instance(study, series, instance))

    def store(self, datasets: Sequence[Dataset]) -> None:
        """Store instances of one study by one request; those that the archive has already stay as they are.

        Raises:
            VividMedError: the archive refuses one, or cannot be reached.
        """

        def send() -> None:
            self._client.set_chunk_size(_ONE_REQUEST)
            try:
                answer = self._client.store_instances(list(datasets))
            finally:
                self._client.set_chunk_size(_READ_CHUNK)
            failed = getattr(answer, "FailedSOPSequence", None)
            if failed:
                reason = failed[0].get("FailureReason", "unknown")
                raise requests.ConnectionError(
                    f"{len(failed)} of {len(datasets)} objects refused, code {reason}"
                )

        self._try("store results", send)

    def _search(
        self, what: str, keyword: str, search: Callable[[int], list[dict[str, Any]]]
    ) -> dict[str, Dataset]:
        """All matches by their UIDs, page by page, until a page brings nothing new: some archives repeat the first."""
        found: dict[str, Dataset] = {}

        def next_page() -> dict[str, Dataset]:
            entries = (Dataset.from_json(entry) for entry in search(len(found)))
            return {str(entry[keyword].value): entry for entry in entries}

        while True:
            page = self._try(f"search for {what}", next_page)
            if page.keys() <= found.keys():
                return found
            found |= page

    def _try(self, what: str, call: Callable[[], T]) -> T:
        """Call until it succeeds, or fails for good."""
        for attempt in range(1, self.attempts + 1):
            try:
                return call()
            except requests.HTTPError as error:
                status = error.response.status_code if error.response is not None else 0
                if status not in _PASSING or attempt == self.attempts:
                    reason = _REASONS.get(status, f"status {status}")
                    refused = TokenError if status == 401 else VividMedError
                    raise refused(f"{self.name}: cannot {what}: {reason}") from error
            except requests.JSONDecodeError as error:
                raise VividMedError(f"{self.name}: cannot {what}: {_NOT_DICOMWEB}") from error
            except (requests.RequestException, ConnectionError) as error:
                if attempt == self.attempts:
                    raise VividMedError(
                        f"{self.name}: cannot {what} in {attempt} attempts ({_reason(error)}); check that the archive runs"
                    ) from error
            except (ValueError, KeyError, AttributeError, TypeError) as error:
                # What dicomweb-client raises for answers that are not DICOMweb.
                raise VividMedError(f"{self.name}: cannot {what}: {_NOT_DICOMWEB}") from error
            time.sleep(self.wait * 2 ** (attempt - 1))
        raise AssertionError("unreachable")


def pseudonym(uid: str) -> str:
    """Short name of a study or series for logs and folders; its UID would lead to the patient."""
    return hashlib.sha256(uid.encode()).hexdigest()[:10]


def _split(url: str) -> Any:
    parts = urlsplit(url)
    port_is_good = False
    with contextlib.suppress(ValueError):
        port_is_good = parts.port is None or parts.port > 0
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_good:
        raise VividMedError(
            "the URL of a DICOMweb service begins with http:// or https://, such as http://localhost:8042/dicom-web"
        )
    return parts


def _reason(error: Exception) -> str:
    text = str(error)
    for known in ("refused", "timed out", "Name or service not known", "missing", "certificate"):
        if known in text:
            return (
                text
                if known == "missing"
                else {"Name or service not known": "unknown host"}.get(known, known)
            )
    return type(error).__name__
