"""The ``vividmed`` command: ``vividmed data preview``, ``vividmed data sample``."""

import argparse
import sys
from collections.abc import Sequence

from vividmed.cli import data
from vividmed.errors import VividMedError
from vividmed.version import __version__


def build_parser() -> argparse.ArgumentParser:
    """The parser of all subcommands; each sets ``run``."""
    parser = argparse.ArgumentParser(prog="vividmed", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    data.add_parser(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    Returns:
        Exit status: 0, or 2 for input that the user can mend.
    """
    args = build_parser().parse_args(arguments)
    try:
        args.run(args)
    except VividMedError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
