"""Settings of the server, and where its token comes from."""

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vividmed.errors import VividMedError

TOKEN_VARIABLE = "VIVIDMED_TOKEN"
SHORTEST_TOKEN = 16

MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Limits and access rules of a server.

    Attributes:
        model_name: name under which clients ask for the model.
        token: bearer token that requests must carry; None accepts every request.
        allowed_hosts: names in the ``Host`` header that are answered without a token. They protect a server on
            loopback from web pages whose domain name is redirected to it. Empty accepts every name.
        cors_origins: origins of web pages that may call the server from a browser.
        max_body_bytes: largest request.
        max_bytes_in_flight: largest sum of all requests that are being read or answered.
        max_requests: most requests that are read, waiting or answered at a time.
        max_images: most images per request.
        max_new_tokens: most tokens per answer.
        batch_size: most questions that are answered together.
        batch_wait: seconds that the first question waits for others.
        timeout: seconds per request: for its arrival, and again for waiting and answering together.
    """

    model_name: str
    token: str | None = None
    allowed_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    max_body_bytes: int = 256 * MIB
    max_bytes_in_flight: int = 1024 * MIB
    max_requests: int = 64
    max_images: int = 4
    max_new_tokens: int = 1024
    batch_size: int = 8
    batch_wait: float = 0.01
    timeout: float = 300.0


def read_token(path: Path | None) -> str | None:
    """Read the token from a file, or else from the environment variable ``VIVIDMED_TOKEN``.

    A token on the command line would be visible to every user of the machine.

    Raises:
        VividMedError: the file cannot be read, or the token is too short or not printable ASCII.
    """
    if path is None:
        token, place = os.environ.get(TOKEN_VARIABLE, ""), TOKEN_VARIABLE
        if not token:
            return None
    else:
        place = f"--token-file {path}"
        try:
            token = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise VividMedError(f"{place}: cannot be read ({error}); give a file with the token") from error
    token = token.strip()
    if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise VividMedError(
            f"{place}: a token is at least {SHORTEST_TOKEN} printable ASCII characters without spaces; make one with "
            "python -c 'import secrets; print(secrets.token_urlsafe())'"
        )
    return token


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_access(host: str, token: str | None, *, public: bool = False) -> tuple[str, ...]:
    """Choose the ``Host`` names to answer at an address.

    Args:
        host: address to listen on.
        token: bearer token, if there is one.
        public: whether everyone may use the server without a token.

    Returns:
        Names for :attr:`ServerSettings.allowed_hosts`.

    Raises:
        VividMedError: the address can be reached from other machines, and there is no token.
    """
    if token is not None or public:
        return ()
    if not is_loopback(host):
        raise VividMedError(
            f"--host {host}: other machines can reach this address; set {TOKEN_VARIABLE} or --token-file, or listen on "
            "127.0.0.1"
        )
    return ("localhost", "127.0.0.1", "::1", host)


def model_name(model: str) -> str:
    """Name of a model for clients: of a repository as it is, of a folder its last part."""
    path = Path(model)
    return path.resolve().name if path.exists() else model


def check_origins(origins: Sequence[str]) -> tuple[str, ...]:
    """Check origins of web pages.

    Raises:
        VividMedError: one has another form than ``https://host[:port]``.
    """
    for origin in origins:
        scheme, separator, rest = origin.partition("://")
        if scheme not in ("http", "https") or not separator or not rest or "/" in rest or "*" in rest:
            raise VividMedError(
                f"--cors-origin {origin}: is not an origin; give scheme, host and port, such as https://viewer.example.org"
            )
    return tuple(origins)
