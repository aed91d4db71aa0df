"""Runs the application until it is asked to stop."""

import signal
import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from vividmed.errors import VividMedError


def listen(host: str, port: int) -> socket.socket:
    """Take an address, before the model is loaded.

    Args:
        host: name or address of this machine.
        port: 0 takes a free one.

    Raises:
        VividMedError: the address cannot be used, or another program has the port.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise VividMedError(
            f"--host {host} --port {port}: cannot listen there ({reason}); choose another port or address"
        ) from error


def run_until_stopped(
    app: FastAPI, listener: socket.socket, *, patience: float, ready: Callable[[], None]
) -> None:
    """Serve until SIGTERM or Ctrl-C; requests that are being answered are answered to their end.

    Args:
        app: application.
        listener: of :func:`listen`.
        patience: most seconds to wait for answers at the end; those that take longer are cut off.
        ready: called before the first request is answered.
    """
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_graceful_shutdown=int(patience),
    )
    # uvicorn repeats the signals that stopped it, which would end the process before its files are removed.
    previous = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        ready()
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        signal.signal(signal.SIGTERM, previous)
        listener.close()
