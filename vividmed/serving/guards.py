"""What stands before every request: access, size, number and time."""

import asyncio
import hmac
import time
from urllib.parse import urlsplit

from h11 import LocalProtocolError
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vividmed.serving.errors import ApiError
from vividmed.serving.metrics import ServerMetrics
from vividmed.serving.settings import ServerSettings

OPEN_PATHS = ("/health",)
"""Answered without a token."""

_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


class Guard:
    """ASGI middleware that refuses requests before their body is read, or while it is.

    Args:
        app: application behind it.
        settings: limits and access rules.
        metrics: figures to keep.
        open_paths: beginnings of paths that need no token.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: ServerSettings,
        metrics: ServerMetrics,
        open_paths: tuple[str, ...] = OPEN_PATHS,
    ):
        self.app = app
        self.settings = settings
        self.metrics = metrics
        self.open_paths = open_paths
        self._requests = 0
        self._bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status, ended = time.perf_counter(), 500, False

        async def send_checked(message: Message) -> None:
            nonlocal status, ended
            if ended:
                return
            starts = message["type"] == "http.response.start"
            if starts:
                status = message["status"]
                names = {name for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *(header for header in _HEADERS if header[0] not in names),
                ]
            try:
                await send(message)
            except LocalProtocolError:
                if not starts:
                    raise
                # The HTTP library has answered a malformed body itself and ended the connection.
                ended = True
                while (await receive())["type"] != "http.disconnect":
                    pass

        try:
            self._check_access(scope)
            if scope["method"] in ("POST", "PUT", "PATCH"):
                await self._limited(scope, receive, send_checked)
            else:
                await self.app(scope, receive, send_checked)
        except ApiError as error:
            await error.response()(scope, receive, send_checked)
        finally:
            path = _route(scope)
            self.metrics.requests.labels(path, str(status)).inc()
            self.metrics.seconds.labels(path).observe(time.perf_counter() - started)

    def _check_access(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        allowed = self.settings.allowed_hosts
        if allowed and _host_name(host) not in allowed:
            raise ApiError(
                403,
                "this server answers on this machine only; call it as localhost or 127.0.0.1",
                code="unknown_host",
            )
        origin = headers.get("origin")
        if (
            origin is not None
            and origin not in self.settings.cors_origins
            and urlsplit(origin).netloc != host
        ):
            raise ApiError(
                403, "calls from web pages of another origin are not allowed", code="unknown_origin"
            )
        token = self.settings.token
        if token is None or any(_begins(scope["path"], path) for path in self.open_paths):
            return
        if scope["method"] == "OPTIONS" and origin is not None:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        # In constant time, so that the answer's delay tells nothing about the token.
        matches = hmac.compare_digest(given.strip().encode("latin-1", "replace"), token.encode())
        if scheme.lower() != "bearer" or not matches:
            raise ApiError(401, "a valid bearer token is needed", code="invalid_api_key")

    async def _limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        settings = self.settings
        if self._requests >= settings.max_requests:
            raise ApiError(429, "too many requests at a time", code="too_many_requests", retry_after=1)
        claimed = Headers(scope=scope).get("content-length", "")
        if claimed.isascii() and claimed.isdecimal() and int(claimed) > settings.max_body_bytes:
            raise self._too_large()
        self._requests += 1
        self.metrics.in_flight.set(self._requests)
        read = 0
        finished = False
        deadline = time.monotonic() + settings.timeout

        async def receive_limited() -> Message:
            nonlocal read, finished
            if finished:
                return await receive()
            try:
                async with asyncio.timeout(max(deadline - time.monotonic(), 0)):
                    message = await receive()
            except TimeoutError:
                raise ApiError(408, "the request did not arrive in time", code="timeout") from None
            size = len(message.get("body", b""))
            read += size
            self._bytes += size
            finished = not message.get("more_body", False)
            if read > settings.max_body_bytes:
                raise self._too_large()
            if self._bytes > settings.max_bytes_in_flight:
                raise ApiError(503, "other requests fill the memory", code="busy", retry_after=5)
            return message

        try:
            await self.app(scope, receive_limited, send)
        finally:
            self._bytes -= read
            self._requests -= 1
            self.metrics.in_flight.set(self._requests)

    def _too_large(self) -> ApiError:
        limit = self.settings.max_body_bytes / 2**20
        return ApiError(
            413, f"the request is larger than {limit:,.0f} MiB; send a smaller or compressed image"
        )


def _host_name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _begins(path: str, beginning: str) -> bool:
    return path == beginning or (beginning.endswith("/") and path.startswith(beginning))


def _route(scope: Scope) -> str:
    """Pattern of the path, so that paths which clients make up do not become labels."""
    route = scope.get("route")
    return getattr(route, "path", "other")
