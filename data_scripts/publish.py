"""Publish a prepared data set or a trained model on the Hub; private unless asked otherwise.

    python data_scripts/publish.py dataset FOLDER namespace/name [--public | --gated]
    python data_scripts/publish.py model FOLDER namespace/name [--public | --gated]

The terms of the data, in the folder's terms.json or provenance.json, decide which audiences are possible. An upload
that was cut off goes on when the same command is run again. See docs/publishing.md.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from vividmed.data.terms import read_terms
from vividmed.errors import VividMedError
from vividmed.hub.publish import Published, publish_dataset, publish_model


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=("dataset", "model"), help="what the folder holds")
    parser.add_argument("folder", type=Path, help="prepared data set or saved model")
    parser.add_argument("repo_id", metavar="namespace/name", help="made, private, when it does not exist")
    audience = parser.add_mutually_exclusive_group()
    audience.add_argument("--public", action="store_true", help="let everyone read it")
    audience.add_argument(
        "--gated", action="store_true", help="let everyone see it, and read it whom you let in, one by one"
    )
    parser.add_argument(
        "--accept",
        action="append",
        default=[],
        metavar="TEXT",
        help="a text that the privacy scan reported and you judged harmless; may be repeated",
    )
    options = parser.parse_args(arguments)
    try:
        published = _publish(options)
    except VividMedError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    loader = "load_dataset" if published.repo_type == "dataset" else "VividMedForCausalLM.from_pretrained"
    print(f"{published.repo_id} is {published.visibility} at commit {published.revision}")
    print(f'load exactly this state: {loader}("{published.repo_id}", revision="{published.revision}")')
    return 0


def _publish(options: argparse.Namespace) -> Published:
    audience = {"public": options.public, "gated": options.gated, "accept": options.accept}
    if options.kind == "model":
        return publish_model(options.folder, options.repo_id, **audience)
    return publish_dataset(options.folder, options.repo_id, terms=read_terms(options.folder), **audience)


if __name__ == "__main__":
    sys.exit(main())
