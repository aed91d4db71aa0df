"""How a phrase is shown, by a mask or by boxes, and how sure the model must be that it is there.

A segmenter draws something for any prompt. Whether its drawing means anything depends on what it was trained on: the
forms that each target had in training are recorded in the configuration (``target_forms``), and so are the presence
scores below which a phrase counts as absent (``presence_thresholds``), which are calibrated on held-out rows.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch

PhraseForm = Literal["mask", "box", "both", "mask first", "box first", "none"]
"""``mask first`` is a mask, or boxes where the mask is empty; ``box first`` the reverse; ``none`` is not looked for."""
FormLookup = Callable[[str], "PhraseForm | None"]
"""From a phrase to its form in training; None if unknown."""

MASK_FORMS: tuple[PhraseForm, ...] = ("mask", "both", "mask first")
BOX_FORMS: tuple[PhraseForm, ...] = ("box", "both", "box first")
RECORDED_FORMS: tuple[PhraseForm, ...] = ("mask", "box", "both")
NOT_DRAWN = float("-inf")
"""Logit of masks and scores that a segmenter was not asked for."""

_WORDS = re.compile(r"\w+")


def default_form(is_volume: bool) -> PhraseForm:
    """Form of a phrase whose training is unknown, as the published weights were trained."""
    return "mask first" if is_volume else "box first"


def find_form(target_forms: Mapping[str, PhraseForm], phrase: str) -> PhraseForm | None:
    """Form of the longest recorded target whose words a phrase contains, in order and side by side.

    Args:
        target_forms: form of each target, by its name.
        phrase: text of the phrase.
    """
    words = _words(phrase)
    found: tuple[int, PhraseForm | None] = (0, None)
    for name, form in target_forms.items():
        wanted = _words(name)
        if len(wanted) > found[0] and any(
            words[start : start + len(wanted)] == wanted for start in range(len(words) - len(wanted) + 1)
        ):
            found = (len(wanted), form)
    return found[1]


def usable_form(form: PhraseForm, *, has_masks: bool, has_boxes: bool) -> PhraseForm:
    """The form, or what is left of it for a model that lacks a segmenter."""
    if form == "none" or (has_masks and has_boxes):
        return form
    if has_masks:
        return "mask"
    return "box" if has_boxes else "none"


def presence_of_masks(logits: torch.Tensor) -> torch.Tensor:
    """Presence scores of phrases from their masks.

    Args:
        logits: (..., D, H, W) mask logits.

    Returns:
        (...) float32, the highest probability of a voxel; 0 for masks that were not drawn.
    """
    return logits.float().amax(dim=(-3, -2, -1)).sigmoid()


def presence_of_boxes(logits: torch.Tensor) -> torch.Tensor:
    """Presence scores of phrases from the scores of their boxes.

    Args:
        logits: (..., Q) logits of the scores.

    Returns:
        (...) float32, the highest score; 0 without boxes.
    """
    if not logits.shape[-1]:
        return torch.zeros(logits.shape[:-1], device=logits.device)
    return logits.float().amax(dim=-1).sigmoid()


def check_target_forms(forms: Any) -> None:
    """Raise ValueError unless ``forms`` maps names of targets to recorded forms."""
    if not isinstance(forms, Mapping) or not all(
        isinstance(name, str) and form in RECORDED_FORMS for name, form in forms.items()
    ):
        raise ValueError(f"target_forms must map names of targets to {', '.join(RECORDED_FORMS)}")


def check_presence_thresholds(thresholds: Any) -> None:
    """Raise ValueError unless ``thresholds`` gives a probability for masks, boxes or both."""
    if not isinstance(thresholds, Mapping) or not all(
        name in ("mask", "box") and isinstance(value, int | float) and 0 <= value <= 1
        for name, value in thresholds.items()
    ):
        raise ValueError("presence_thresholds must map 'mask' and 'box' to probabilities from 0 to 1")


def phrase_numbers(forms: Sequence[PhraseForm], wanted: Sequence[PhraseForm]) -> torch.Tensor:
    """(n,) int64, the places of the phrases whose form is one of ``wanted``."""
    return torch.tensor([number for number, form in enumerate(forms) if form in wanted], dtype=torch.long)


def _words(text: str) -> list[str]:
    return _WORDS.findall(text.lower())
