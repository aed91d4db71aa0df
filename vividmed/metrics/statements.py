"""Statements of side, size and number: of a text against its reference, and against the places that were drawn."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import datasets
import numpy as np
from scipy import ndimage

from vividmed.data.pseudo_labels.tagging import Tagger
from vividmed.metrics.entailment import stated_sides
from vividmed.metrics.grounding import PLACE
from vividmed.metrics.masks import decode_mask
from vividmed.metrics.metric import ItemMetric, MeanMetric, check_lengths, nan_mean

SIZE_TOLERANCE = 0.2
"""Largest difference of a stated size, as a share of it."""
SMALLEST_TOLERANCE_MM = 2.0

_SENTENCE = re.compile(r"[^.!?\n]+(?:\.(?=\d)[^.!?\n]*)*")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(mm|cm)\b(?!\s*(?:from|above|below|to)\b)", re.IGNORECASE)
_NUMBERS = {
    word: number
    for number, words in enumerate(
        (("one", "single", "solitary"), ("two",), ("three",), ("four",), ("five",), ("six",), ("seven",)),
        start=1,
    )
    for word in words
}
_COUNT = re.compile(rf"\b({'|'.join(_NUMBERS)})\b", re.IGNORECASE)


class Laterality(ItemMetric):
    """Sides of what both texts mention.

    ``laterality_accuracy``: of the targets that both texts state as present and with a side, the share whose sides are
    the same. An answer without a target of the taxonomy counts as a whole if its reference names a side.
    ``laterality_unstated``: of the targets that both mention and whose side the reference states, the share for which the
    prediction states none.

    Args:
        tagger: finds the targets; that of the package's taxonomy by default.
    """

    description = "accuracy of stated sides"

    def __init__(self, *, tagger: Tagger | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.tagger = tagger or Tagger()

    def score_items(self, predictions: Sequence[str], references: Sequence[str]) -> list[dict[str, int]]:
        check_lengths(predictions, references)
        return [
            self._score(self._sides(prediction), self._sides(reference))
            for prediction, reference in zip(predictions, references, strict=True)
        ]

    def _score(
        self, said: Mapping[str, frozenset[str]], true: Mapping[str, frozenset[str]]
    ) -> dict[str, int]:
        shared = [name for name, sides in true.items() if sides and name in said]
        stated = [name for name in shared if said[name]]
        return {
            "shared": len(shared),
            "stated": len(stated),
            "right": sum(said[name] == true[name] for name in stated),
        }

    def _sides(self, text: str) -> dict[str, frozenset[str]]:
        """Sides of each target that is present, without the side in its name."""
        found: dict[str, frozenset[str]] = {}
        mentions = [mention for mention in self.tagger(text) if mention.status != "absent"]
        for number, mention in enumerate(mentions):
            name = re.sub(r"^(?:left|right) ", "", mention.target)
            sides = stated_sides(mention.text) or stated_sides(mention.target)
            if not sides:
                before = mentions[number - 1].end if number else 0
                after = mentions[number + 1].start if number + 1 < len(mentions) else len(text)
                sides = stated_sides(_within_sentence(text, mention.start, mention.end, before, after))
            found[name] = found.get(name, frozenset()) | sides
        return found or {"": stated_sides(text)}

    def aggregate(self, items: Sequence[Mapping[str, int]]) -> dict[str, float]:
        shared, stated, right = (sum(item[name] for item in items) for name in ("shared", "stated", "right"))
        return {
            "laterality_accuracy": right / stated if stated else float("nan"),
            "laterality_unstated": (shared - stated) / shared if shared else float("nan"),
        }

    def count(self, items: Sequence[Mapping[str, int]], figure: str) -> int:
        return sum(item["stated" if figure == "laterality_accuracy" else "shared"] for item in items)


class Agreement(MeanMetric):
    """Agreement of a report with the places that were drawn for its phrases; no reference is needed.

    ``side_agreement``: of the drawn phrases for which the text names one side, the share whose centre lies on that side
    of the image.
    ``size_agreement``: of the drawn phrases for which the text gives a size, the share whose longest diameter in a plane
    differs by at most 20 % or 2 mm.
    ``count_agreement``: of the drawn phrases that state a number (*two nodules*), the share with that many boxes, or
    connected parts of the mask where there are no boxes.

    Each prediction is ``{"text": ..., "phrases": [...], "places": [...], "left": [...]}``. ``left`` is the direction of the
    patient's left: the axis of the grid (0, 1, 2) and whether it runs to the left (1) or away from it (-1); empty where
    it is not known. References are not looked at.
    """

    description = "agreement of text and places"
    _SIDE_FEATURES = {  # noqa: RUF012
        "text": datasets.Value("string"),
        "phrases": datasets.List(datasets.Value("string")),
        "places": datasets.List(PLACE),
        "size": datasets.List(datasets.Value("int32"), length=3),
        "left": datasets.List(datasets.Value("int32")),
    }
    features = datasets.Features({"predictions": _SIDE_FEATURES, "references": _SIDE_FEATURES})

    def score_item(self, prediction: Mapping[str, Any], reference: Any) -> dict[str, float]:
        figures: dict[str, list[float]] = {name: [] for name in ("side", "size", "count")}
        placed = list(_phrases_in_context(prediction["text"], prediction["phrases"]))
        for (phrase, sentence), place in zip(placed, prediction["places"], strict=True):
            if place["mask"] is None and not len(place["boxes"]):
                continue
            if (side := _one_side(phrase, sentence)) and len(prediction["left"]) == 2:
                measured = _measured_side(place, prediction["size"], prediction["left"])
                figures["side"].append(float(measured == side))
            if (size := _stated_mm(sentence)) and (diameter := _diameter_mm(place)):
                tolerance = max(SIZE_TOLERANCE * size, SMALLEST_TOLERANCE_MM)
                figures["size"].append(float(abs(diameter - size) <= tolerance))
            if count := _COUNT.search(phrase):
                figures["count"].append(float(_count(place) == _NUMBERS[count.group(1).lower()]))
        return {f"{name}_agreement": nan_mean(values) for name, values in figures.items()}


def _phrases_in_context(text: str, phrases: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each phrase with its sentence, cut before and after the other phrases of that sentence."""
    spans, start = [], 0
    for phrase in phrases:
        place = text.find(phrase, start)
        spans.append((place, place + len(phrase)) if place >= 0 else (start, start))
        start = spans[-1][1]
    for number, (first, last) in enumerate(spans):
        before = spans[number - 1][1] if number else 0
        after = spans[number + 1][0] if number + 1 < len(spans) else len(text)
        yield phrases[number], _within_sentence(text, first, last, before, max(after, last))


def _within_sentence(text: str, start: int, end: int, first: int, last: int) -> str:
    """The part of the sentence around a span that lies between two other places."""
    for match in _SENTENCE.finditer(text):
        if match.start() <= start < match.end():
            return text[max(first, match.start()) : min(last, match.end())]
    return text[start:end]


def _one_side(phrase: str, sentence: str) -> str | None:
    sides = stated_sides(phrase) or stated_sides(sentence)
    return next(iter(sides)) if len(sides) == 1 else None


def _stated_mm(sentence: str) -> float | None:
    """The longest size that a sentence gives."""
    sizes = [float(value) * (10 if unit.lower() == "cm" else 1) for value, unit in _SIZE.findall(sentence)]
    return max(sizes, default=None)


def _measured_side(place: Mapping[str, Any], size: Sequence[int], left: Sequence[int]) -> str:
    axis, direction = left
    if place["mask"] is not None:
        inside = np.nonzero(decode_mask(place["mask"]))
        centre = float(inside[axis].mean()) + 0.5
    else:
        boxes = np.asarray(place["boxes"], dtype=float)
        centre = float((boxes[0, axis] + boxes[0, axis + 3]) / 2)
    return "left" if (centre - size[axis] / 2) * direction > 0 else "right"


def _diameter_mm(place: Mapping[str, Any]) -> float | None:
    """Longest edge in a plane of the box around the largest part of a mask; None where millimetres are not known."""
    mask = place["mask"]
    if mask is None or (mask["size"][0] == 1 and set(mask["spacing"]) == {1.0}):
        return None
    labels, count = ndimage.label(decode_mask(mask), ndimage.generate_binary_structure(3, 3))
    if not count:
        return None
    largest = labels == 1 + np.bincount(labels.ravel())[1:].argmax()
    extent = [np.ptp(axis) + 1 for axis in np.nonzero(largest)]
    return float(max(length * step for length, step in list(zip(extent, mask["spacing"], strict=True))[1:]))


def _count(place: Mapping[str, Any]) -> int:
    if len(place["boxes"]):
        return len(place["boxes"])
    return int(ndimage.label(decode_mask(place["mask"]), ndimage.generate_binary_structure(3, 3))[1])
