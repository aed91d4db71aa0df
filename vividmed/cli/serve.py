"""Serve a model over HTTP, with OpenAI's chat protocol, grounding and segmentation.

    vividmed serve --model outputs/grg
    VIVIDMED_TOKEN=... vividmed serve --model outputs/grg --host 0.0.0.0 --port 8000
    vividmed serve --model outputs/grg --dicomweb http://localhost:8042/dicom-web

Any OpenAI client works with http://127.0.0.1:8000/v1. The routes are documented at /docs, figures for Prometheus are at
/metrics. Nothing is kept after an answer. Only this machine can call the server unless a token is set, in VIVIDMED_TOKEN
or in a file. With --dicomweb it also answers the studies of an archive as they arrive, with DICOM SEG and SR; the
archive's token is in DICOMWEB_TOKEN. Ctrl-C or SIGTERM stops it after the answers in progress. Not for diagnosis. See docs/serve.md.
"""

import argparse
import os
from datetime import date, datetime
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
    parser.add_argument("--dicomweb", metavar="URL", help="archive whose studies are answered as they arrive")
    parser.add_argument("--to-dicomweb", metavar="URL", help="archive of the results (default: the same)")
    parser.add_argument(
        "--since", metavar="YYYYMMDD", help="answer studies from this day on (default: today)"
    )


def run(args: argparse.Namespace) -> int | None:
    """Serve until stopped."""
    from vividmed.serving.application import create_app
    from vividmed.serving.running import listen, run_until_stopped

    settings = server_settings(args)
    archives = _archives(args)
    with listen(args.host, args.port) as listener:
        app: Any = create_app(load_predictor(args), settings)
        if archives is not None:
            from vividmed.serving.archive import answer_archive

            source, destination, since = archives
            filters = {"StudyDate": f"{since}-"}
            answer_archive(app.state.service, source=source, destination=destination, filters=filters)
        address = server_address(args.host, listener)
        run_until_stopped(
            app,
            listener,
            patience=settings.timeout,
            ready=lambda: print(f"{settings.model_name}: {address}/v1 (routes: {address}/docs)", flush=True),
        )
    return None


def _archives(args: argparse.Namespace) -> tuple[Any, Any, str] | None:
    """Archive of the images, archive of the results, and the first day; None without an archive."""
    from vividmed.errors import VividMedError

    if args.dicomweb is None:
        if args.to_dicomweb or args.since:
            raise VividMedError("--to-dicomweb and --since need --dicomweb")
        return None
    since = args.since or f"{date.today():%Y%m%d}"
    try:
        datetime.strptime(since, "%Y%m%d")
    except ValueError as error:
        raise VividMedError(f"--since {since!r} is not a day; write it as YYYYMMDD") from error
    try:
        from vividmed.pacs.client import Pacs
    except ModuleNotFoundError as error:
        raise VividMedError(
            '--dicomweb needs dicomweb-client; install it with pip install "vividmed[pacs]"'
        ) from error
    token = os.environ.get("DICOMWEB_TOKEN")
    source = Pacs(args.dicomweb, token=token)
    return source, source if args.to_dicomweb is None else Pacs(args.to_dicomweb, token=token), since
