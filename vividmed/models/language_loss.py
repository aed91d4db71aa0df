"""Cross-entropy on the supervised tokens only, without the logits of all the others."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from vividmed.errors import VividMedError

IGNORE_INDEX = -100
CHUNK_TOKENS = 4096


def shifted_labels(
    labels: torch.Tensor | None, shift_labels: torch.Tensor | None, input_ids: torch.Tensor | None
) -> torch.Tensor | None:
    """The labels that position l predicts, from whichever argument gives them.

    Args:
        labels: (B, L), already shifted.
        shift_labels: the same under the name that transformers uses. It takes precedence, as it does there.
        input_ids: (B, L), or None if unknown.

    Raises:
        VividMedError: the labels repeat the input (a model that learns to predict its own input reaches a loss of
            zero and writes nonsense), or ``shift_labels`` were made by shifting labels that are shifted already.
    """
    if shift_labels is None:
        chosen = labels
    else:
        chosen = shift_labels
        if (
            labels is not None
            and labels.shape == shift_labels.shape
            and not _repeats_input(labels, input_ids)
            and bool((labels[:, 1:] == shift_labels[:, :-1]).all() & (labels != shift_labels).any())
        ):
            raise VividMedError(
                "shift_labels are the labels shifted by one, but this model's labels are shifted already: pass the "
                "labels themselves as shift_labels"
            )
    if chosen is not None and _repeats_input(chosen, input_ids):
        raise VividMedError(
            "the labels equal input_ids, but this model takes labels that are already shifted: labels[:, l] is the "
            "token after input_ids[:, l]; use the processor's labels, or shift them by one"
        )
    return chosen


def _repeats_input(labels: torch.Tensor, input_ids: torch.Tensor | None) -> bool:
    """Whether all labels are the token at their own place, and not also the next one."""
    if input_ids is None or labels.shape != input_ids.shape:
        return False
    supervised = labels != IGNORE_INDEX
    repeats = (labels == input_ids)[supervised]
    follows = (labels[:, :-1] == input_ids[:, 1:])[supervised[:, :-1]]
    return len(repeats) > 1 and bool(repeats.all() & ~follows.all())


def weighted_token_loss(
    hidden_states: torch.Tensor,
    labels: torch.Tensor,
    label_weights: torch.Tensor | None,
    head: Callable[[torch.Tensor], torch.Tensor],
    normaliser: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """Sum of weight times cross-entropy over supervised positions, divided by their NUMBER (the published rule).

    Logits exist for supervised positions only, in float32 and for a chunk at a time; a chunk's are recomputed in the
    backward pass when there are several.

    Args:
        hidden_states: (B, L, C) after the final norm.
        labels: (B, L), already shifted: ``labels[b, l]`` is predicted at l. -100 is not supervised.
        label_weights: (B, L) or None for 1.
        head: (M, C) to (M, vocabulary).
        normaliser: what to divide by instead of the number of this batch's labels, for a batch that is part of a
            larger one.

    Returns:
        0-dim float32; 0, still attached to the graph, when nothing is supervised.
    """
    flat_labels = labels.flatten()
    supervised = (flat_labels != IGNORE_INDEX).nonzero().squeeze(1)
    states = hidden_states.flatten(0, 1).index_select(0, supervised)
    targets = flat_labels.index_select(0, supervised)
    weights = None if label_weights is None else label_weights.flatten().index_select(0, supervised).float()

    def chunk_loss(states: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        losses = F.cross_entropy(head(states).float(), targets, reduction="none")
        return (losses if weights is None else losses * weights).sum()

    if len(targets) <= CHUNK_TOKENS:
        total = chunk_loss(states, targets, weights)
    else:
        chunks = [
            checkpoint(chunk_loss, s, t, w, use_reentrant=False)
            for s, t, w in zip(
                states.split(CHUNK_TOKENS),
                targets.split(CHUNK_TOKENS),
                weights.split(CHUNK_TOKENS)
                if weights is not None
                else [None] * (-(-len(targets) // CHUNK_TOKENS)),
                strict=True,
            )
        ]
        total = torch.stack(chunks).sum()
    if normaliser is None:
        normaliser = len(targets)
    if isinstance(normaliser, torch.Tensor):
        return total / normaliser.to(total.device).clamp(min=1)
    return total / max(normaliser, 1)
