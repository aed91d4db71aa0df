"""Argument parser of the verbs: errors of one line that name the nearest thing that exists."""

import argparse
import difflib
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from vividmed.errors import VividMedError


class CommandParser(argparse.ArgumentParser):
    """Parser that raises :class:`VividMedError` instead of printing its usage and exiting."""

    def __init__(self, prog: str, description: str | None = None, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(prog=prog, description=description, allow_abbrev=False, **options)

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> argparse.Namespace:
        """Parse a command line.

        Raises:
            VividMedError: an argument is unknown, missing or malformed.
        """
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            flags = [flag for action in self._actions for flag in action.option_strings]
            self.error(f"unknown argument {unknown[0]}{did_you_mean(unknown[0].partition('=')[0], flags)}")
        return parsed

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        choices = [str(choice) for choice in action.choices or ()]
        if choices and value not in action.choices:  # type: ignore[operator]
            hint = did_you_mean(str(value), choices) or f"; choose one of {', '.join(choices)}"
            raise argparse.ArgumentError(action, f"unknown value {value!r}{hint}")

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        # An empty path would be the current folder.
        if action.type is Path and not arg_string.strip():
            raise argparse.ArgumentError(action, "is empty; name a file or folder")
        return super()._get_value(action, arg_string)

    def error(self, message: str) -> NoReturn:
        """Raise an error of one line in place of the usage."""
        raise VividMedError(f"{self.prog}: {message} (see {self.prog} --help)")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``; did you mean X?`` with the nearest known word, or nothing if none is near."""
    nearest = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {nearest[0]}?" if nearest else ""


def positive_int(text: str) -> int:
    """Type of an argument that counts something."""
    value = _number(text, int)
    if value is None or value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(value)


def random_seed(text: str) -> int:
    """Type of an argument that seeds random numbers."""
    value = _number(text, int)
    if value is None or not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {2**32 - 1}")
    return int(value)


def seconds(text: str) -> float:
    """Type of an argument that limits a time."""
    value = _number(text, float)
    if value is None or not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def share(text: str) -> float:
    """Type of an argument from 0 to 1."""
    value = _number(text, float)
    if value is None or not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value


def _number(text: str, number: type[int] | type[float]) -> float | None:
    try:
        return number(text)
    except ValueError:
        return None


def add_on_bad_sample(parser: argparse.ArgumentParser) -> None:
    """Add ``--on-bad-sample``."""
    parser.add_argument(
        "--on-bad-sample",
        choices=("error", "skip"),
        default="error",
        help="rows that cannot be read: 'error' stops and names the row, 'skip' warns and leaves it out (default: error)",
    )
