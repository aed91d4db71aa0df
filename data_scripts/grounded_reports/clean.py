"""The same as ``vividmed ground-reports clean``, from a clone without an installation."""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parents[2])
)  # found from a clone, whatever the working folder

from vividmed.cli.main import main as vividmed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return vividmed(["ground-reports", "clean", *(sys.argv[1:] if arguments is None else arguments)])


if __name__ == "__main__":
    sys.exit(main())
