"""Serve a model over HTTP, with OpenAI's chat protocol, grounding and segmentation.

    vividmed serve --model outputs/grg
    VIVIDMED_TOKEN=... vividmed serve --model outputs/grg --host 0.0.0.0 --port 8000

Any OpenAI client works with http://127.0.0.1:8000/v1. The routes are documented at /docs, figures for Prometheus are at
/metrics. Nothing is kept after an answer. Only this machine can call the server unless a token is set, in VIVIDMED_TOKEN
or in a file. Ctrl-C or SIGTERM stops it after the answers in progress. Not for diagnosis. See docs/serve.md.
"""

import argparse
from typing import Any

from vividmed.cli.server_arguments import (
    add_server_arguments,
    load_predictor,
    server_address,
    server_settings,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``vividmed serve``."""
    add_server_arguments(parser, port=8000)


def run(args: argparse.Namespace) -> int | None:
    """Serve until stopped."""
    from vividmed.serving.application import create_app
    from vividmed.serving.running import listen, run_until_stopped

    settings = server_settings(args)
    with listen(args.host, args.port) as listener:
        app: Any = create_app(load_predictor(args), settings)
        address = server_address(args.host, listener)
        run_until_stopped(
            app,
            listener,
            patience=settings.timeout,
            ready=lambda: print(f"{settings.model_name}: {address}/v1 (routes: {address}/docs)", flush=True),
        )
    return None
