"""The decoder's states while it writes, so that grounding need not run the text and its images a second time."""

from typing import Any

import torch


class WrittenStates:
    """Collects, for each step of ``generate``, the state from which the next token is chosen.

    Only greedy search and sampling choose one token per step and row. For other methods, such as beams and candidates
    of an assistant, :meth:`of_tokens` returns None, and the text has to be run again.
    """

    def __init__(self) -> None:
        self._steps: list[torch.Tensor] = []
        self._usable = True

    def add(self, outputs: Any) -> None:
        """Add a step.

        Args:
            outputs: of the model's forward with ``output_last_state``.
        """
        if outputs.last_state is None or outputs.logits.shape[1] != 1:
            self._usable = False
        elif self._usable:
            # A copy: compiled steps write their outputs to the same memory again.
            self._steps.append(outputs.last_state.to(torch.float32, copy=True))

    def of_tokens(self, batch_size: int, count: int) -> torch.Tensor | None:
        """States of the first steps.

        Args:
            batch_size: number of rows, B.
            count: number of new tokens per row, T. Steps after them were taken back and are ignored.

        Returns:
            (B, T, C) float32: the state that each new token was chosen from. None if the steps do not fit.
        """
        if not self._usable or len(self._steps) < count or not count:
            return None
        if any(len(states) != batch_size for states in self._steps[:count]):
            return None
        return torch.stack(self._steps[:count], dim=1)
