"""Interface of the inputs to fuzz."""

from pathlib import Path
from random import Random
from typing import Protocol


class Subject(Protocol):
    """One kind of input, and the public functions that it is given to.

    Attributes:
        name: used on the command line and in the table.
        share: inputs of this kind, relative to the other kinds.
    """

    name: str
    share: int

    def try_one(self, rng: Random, folder: Path) -> None:
        """Make one broken input and use it.

        Args:
            rng: decides everything about the input.
            folder: empty, for files.

        Raises:
            VividMedError: the input was refused, which is right. Anything else is a fault.
        """
