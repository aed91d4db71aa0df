"""Client of OpenAI-compatible endpoints (vLLM, llama.cpp, Ollama), and the rule that keeps reports away from strangers."""

import ipaddress
import json
import os
import re
import socket
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from vividmed.data.pseudo_labels.language_models import Failure, LanguageModel, Message
from vividmed.data.terms import DatasetTerms
from vividmed.errors import VividMedError

KEY_VARIABLE = "VIVIDMED_ENDPOINT_KEY"
"""Environment variable with the key of the endpoint, if it wants one."""

_LARGEST_RESPONSE = 4_000_000
_STOP_AFTER = 20
"""Questions in a row without any answer after which the endpoint counts as broken."""
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
_PAUSES = (0.0, 1.0, 4.0, 15.0)
_LONGEST_PAUSE = 60.0
_CONFIRMED_ACCESS = ("open", "registered")


class Endpoint(LanguageModel):
    """A model behind ``URL/chat/completions``.

    Nothing but the conversation is sent. Redirects are not followed, because they could lead reports to another host.

    Args:
        url: base address, such as ``http://127.0.0.1:8080/v1``.
        name: name of the model as the endpoint knows it.
        batch_size: number of requests at the same time.
        max_new_tokens: longest answer.
        timeout: seconds until an answer must be complete.
    """

    def __init__(
        self,
        url: str,
        name: str,
        *,
        batch_size: int = 8,
        max_new_tokens: int = 2048,
        timeout: float = 300.0,
    ) -> None:
        self.url = url.rstrip("/")
        self.name = name
        self.batch_size = batch_size
        self.max_new_tokens = max_new_tokens
        self.timeout = timeout
        self.is_private = is_private(self.url)
        self._unanswered = 0

    def complete(self, conversations: Sequence[list[Message]]) -> list[str | Failure]:
        import httpx2

        headers = {"Authorization": f"Bearer {key}"} if (key := os.environ.get(KEY_VARIABLE)) else {}
        # A proxy of the environment must not see what goes to a machine of one's own network.
        with (
            httpx2.Client(headers=headers, timeout=self.timeout, trust_env=not self.is_private) as client,
            ThreadPoolExecutor(self.batch_size) as pool,
        ):
            replies = list(pool.map(lambda turns: self._request(client, turns), conversations))
        for reply in replies:
            self._unanswered = self._unanswered + 1 if isinstance(reply, Failure) else 0
        if self._unanswered >= _STOP_AFTER:
            last = next(reply.reason for reply in reversed(replies) if isinstance(reply, Failure))
            raise VividMedError(
                f"--endpoint {self.url}: gave no usable answer to {self._unanswered} questions in a row ({last}); correct "
                "it and run the command again to resume"
            )
        return replies

    def _request(self, client: Any, turns: list[Message]) -> str | Failure:
        import httpx2

        body = {
            "model": self.name,
            "messages": turns,
            "temperature": 0,
            "seed": 0,
            "max_tokens": self.max_new_tokens,
            "stream": False,
        }
        status: int | None = None
        wanted = 0.0
        for pause in _PAUSES:
            time.sleep(max(pause, min(wanted, _LONGEST_PAUSE)))
            try:
                status, content, wanted = self._post(client, body)
            except TimeoutError:
                return Failure("the endpoint timed out")
            except httpx2.TimeoutException:
                return Failure("the endpoint timed out")
            except OverflowError:
                return Failure("the answer is far too long")
            except httpx2.ConnectError as error:
                raise VividMedError(
                    f"--endpoint {self.url}: cannot be reached ({error}); start it and run the command again to resume"
                ) from error
            except httpx2.HTTPError:
                continue
            if status == 200:
                return _answer(content)
            if status not in _BUSY:
                break
        if status is None:
            return Failure("the endpoint broke the connection")
        if status in _BUSY or status in (400, 413, 422):
            return Failure(f"the endpoint answered with status {status}")
        raise VividMedError(
            f"--endpoint {self.url}: answered with status {status}; check the address, the --model, and the key in "
            f"{KEY_VARIABLE}"
        )

    def _post(self, client: Any, body: dict[str, Any]) -> tuple[int, bytes, float]:
        """Status, content, and the pause in seconds that the endpoint asks for; an answer that trickles in counts as late.

        Raises:
            TimeoutError: the answer is not complete in time.
            OverflowError: the answer is far too long.
        """
        deadline = time.monotonic() + self.timeout
        content = b""
        with client.stream("POST", f"{self.url}/chat/completions", json=body) as response:
            for piece in response.iter_bytes():
                content += piece
                if len(content) > _LARGEST_RESPONSE:
                    raise OverflowError
                if time.monotonic() > deadline:
                    raise TimeoutError
            return response.status_code, content, _retry_after(response.headers.get("Retry-After", ""))


def is_private(url: str) -> bool:
    """Whether every address of a host is on this machine or in a private network.

    Raises:
        VividMedError: the address is not one of http, or the host is unknown.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise VividMedError(f"--endpoint {url!r}: is not an address ({error})") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise VividMedError(f"--endpoint {url!r}: is not an address; give one like http://127.0.0.1:8080/v1")
    if parts.username or parts.password:
        raise VividMedError(
            f"--endpoint: the address contains a user or password; put the key into {KEY_VARIABLE}"
        )
    try:
        found = socket.getaddrinfo(parts.hostname, port or 443, type=socket.SOCK_STREAM)
    except OSError as error:
        raise VividMedError(f"--endpoint {url}: unknown host {parts.hostname!r} ({error})") from error
    addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    return all(_is_own(address) for address in addresses)


def _is_own(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    mapped = getattr(address, "ipv4_mapped", None) or address
    return (mapped.is_loopback or mapped.is_private or mapped.is_link_local) and not mapped.is_unspecified


def quote_of(terms: DatasetTerms) -> str:
    """The words of a data set's terms that a user must repeat to send its reports to a public address."""
    return f"{terms.name}: {terms.terms or terms.licence}"


def check_address(endpoint: Endpoint, terms: Iterable[DatasetTerms], *, confirmed: Iterable[str]) -> None:
    """Refuse to send reports of credentialed or unknown terms to a public address.

    Args:
        endpoint: where reports would be sent.
        terms: terms of everything that the reports come from.
        confirmed: the quotes that the user gave, see :func:`quote_of`.

    Raises:
        VividMedError: the address is public and the terms of a data set were not quoted.
    """
    if endpoint.is_private:
        return
    given = {" ".join(quote.split()) for quote in confirmed}
    for each in terms:
        quote = " ".join(quote_of(each).split())
        if each.access not in _CONFIRMED_ACCESS and quote not in given:
            raise VividMedError(
                f"--endpoint {endpoint.url}: is a public address, and the reports come from data with {each.access} access; "
                f"use an endpoint on your own network, or, if the terms allow it, add --confirm-terms '{quote}'"
            )


def _retry_after(header: str) -> float:
    """Seconds of a ``Retry-After`` header; 0 if it is absent, a date or nonsense."""
    return float(header) if re.fullmatch(r"\d{1,6}", header.strip()) else 0.0


def _answer(content: bytes) -> str | Failure:
    """The text of a response, or why there is none."""
    try:
        text = json.loads(content)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        return Failure("the endpoint's answer is not a chat completion")
    return text if isinstance(text, str) and text.strip() else Failure("the answer is empty")
