"""Open a page in the browser to look at scans with a model: viewer, conversation, reports whose phrases light up.

    vividmed app --model outputs/grg
    vividmed app --model outputs/grg --samples scans/
    vividmed app --model NAME/REPOSITORY --space my-space

The page works without internet and keeps nothing: a scan is removed when its tab is closed, or after half an hour
without use. It is served with all routes of `vividmed serve`, for this machine only unless a token is set. --space
writes a folder to push as a Docker Space of the Hugging Face Hub. Research use only. See docs/serve.md.
"""

import argparse
from pathlib import Path

from shtab import DIRECTORY

from vividmed.cli.server_arguments import (
    add_server_arguments,
    load_predictor,
    server_address,
    server_settings,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``vividmed app``."""
    add_server_arguments(parser, port=7860)
    samples = parser.add_argument("--samples", type=Path, help="folder of scans to offer")
    samples.complete = DIRECTORY  # type: ignore[attr-defined]
    parser.add_argument(
        "--public", action="store_true", help="let everyone in without a token, as a Space does"
    )
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    space = parser.add_argument("--space", type=Path, help="write a Space into this folder instead")
    space.complete = DIRECTORY  # type: ignore[attr-defined]


def run(args: argparse.Namespace) -> int | None:
    """Serve the page until stopped, or write a Space."""
    if args.space is not None:
        from vividmed.app.space import write_space

        write_space(args.space, model=args.model)
        print(f"{args.space}: create a Docker Space on the Hub and push this folder to it")
        return None

    import webbrowser

    from vividmed.app.routes import create_page
    from vividmed.app.samples import find_samples
    from vividmed.serving.running import listen, run_until_stopped

    settings = server_settings(args, public=args.public)
    samples = find_samples(args.samples)
    with listen(args.host, args.port) as listener:
        app = create_page(load_predictor(args), settings, samples=samples)
        address = server_address(args.host, listener)

        def ready() -> None:
            print(f"{settings.model_name}: {address}", flush=True)
            if args.open:
                webbrowser.open(address)

        run_until_stopped(app, listener, patience=settings.timeout, ready=ready)
    return None
