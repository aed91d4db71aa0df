"""What the launcher needs to know of a stage."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Stage:
    """A stage of training.

    Attributes:
        run: trains; called with the arguments' dataclasses, in order.
        arguments: the dataclasses.
    """

    run: Callable[..., None]
    arguments: tuple[type[Any], ...]
