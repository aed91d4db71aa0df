"""Publish a prepared data set or a trained model on the Hub, private unless asked otherwise.

    vividmed push FOLDER namespace/name [--public | --gated]

What the folder contains decides what is sent: a model or adapter with its processor, card, configuration, figures and
provenance, or a data set. `push model FOLDER ...` and `push dataset FOLDER ...` say it instead. The terms of the data, in the folder's terms.json or provenance.json, decide which audiences are possible. If an upload
is cut off, run the same command again to send the rest. See docs/publishing.md.
"""

import argparse
from pathlib import Path

from shtab import DIRECTORY

from vividmed.errors import VividMedError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``vividmed push``."""
    parser.add_argument(
        "repo_type",
        nargs="?",
        choices=("dataset", "model"),
        help="what the folder contains (default: found out by its files)",
    )
    folder = parser.add_argument("folder", type=Path, help="prepared data set, saved model or adapter")
    folder.complete = DIRECTORY  # type: ignore[attr-defined]
    parser.add_argument(
        "repo_id", metavar="namespace/name", help="repository; created, private, if it does not exist"
    )
    add_audience(parser)
    parser.add_argument(
        "--base-model-id",
        metavar="namespace/name",
        help="base model of an adapter on the Hub, if the adapter does not name it itself",
    )
    parser.add_argument(
        "--accept",
        action="append",
        default=[],
        metavar="TEXT",
        help="a text that the privacy scan reported and you judged harmless; may be repeated",
    )


def add_audience(parser: argparse.ArgumentParser) -> None:
    """Add ``--public`` and ``--gated``."""
    audience = parser.add_mutually_exclusive_group()
    audience.add_argument(
        "--public", action="store_true", help="make the repository public, if the terms of the data allow it"
    )
    audience.add_argument(
        "--gated",
        action="store_true",
        help="make the repository visible to everyone, but approve each access request yourself",
    )


def run(args: argparse.Namespace) -> None:
    """Publish the folder and print how to load exactly what was published."""
    from vividmed.hub.publish import find_repo_type, publish_dataset, publish_model

    folder, repo_id = args.folder, args.repo_id
    if args.repo_type is None and str(folder) in ("dataset", "model") and "/" not in repo_id:
        raise VividMedError(
            "vividmed push: the following arguments are required: namespace/name (see vividmed push --help)"
        )
    audience = {"public": args.public, "gated": args.gated, "accept": args.accept}
    if (args.repo_type or find_repo_type(folder)) == "model":
        published = publish_model(folder, repo_id, base_model_id=args.base_model_id, **audience)
    elif args.base_model_id is not None:
        raise VividMedError("vividmed push: --base-model-id is for models")
    else:
        published = publish_dataset(folder, repo_id, **audience)
    print(f"{published.repo_id} is {published.visibility} at commit {published.revision}")
    print(f"load exactly this state: {published.loading_line}")
    if published.missing:
        print(f"the card does not give: {'; '.join(published.missing)}")
