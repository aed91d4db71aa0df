"""Writes ``failures.csv``: every case without rows and every case with a warning, with the reasons."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from vividmed.files import write_atomically

COLUMNS = ("id", "outcome", "reason")


def write_failures(
    path: Path,
    failed: Mapping[str, str],
    left_out: Mapping[str, str],
    warnings: Mapping[str, Sequence[str]],
) -> None:
    """Write the table, sorted by outcome and id: ``failed``, ``left out`` on purpose, or prepared with a ``warning``."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((key, "failed", reason) for key, reason in sorted(failed.items()))
    writer.writerows((key, "left out", reason) for key, reason in sorted(left_out.items()))
    writer.writerows(
        (key, "warning", reason) for key, reasons in sorted(warnings.items()) for reason in reasons
    )
    write_atomically(path, stream.getvalue())
