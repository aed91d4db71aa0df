"""Arguments of every preparation: how images become rows, and with how many processes."""

import argparse

from vividmed.cli.parser import positive_int

WINDOWS = ("abdomen", "bone", "brain", "lung", "mediastinum", "wide")


def add_work(parser: argparse.ArgumentParser, items: str) -> None:
    """Add ``--num-proc``, ``--limit`` and ``--window``.

    Args:
        items: what ``--limit`` counts, in the plural.
    """
    parser.add_argument(
        "--num-proc",
        type=positive_int,
        default=1,
        metavar="N",
        help="number of worker processes (default: 1)",
    )
    parser.add_argument("--limit", type=positive_int, metavar="N", help=f"prepare only the first N {items}")
    parser.add_argument(
        "--window", choices=WINDOWS, help="intensity window for CT, instead of quantiles of the image"
    )
