"""Phrases and the places that were found for them."""

from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import numpy as np
from monai.data.box_utils import box_iou
from scipy import ndimage

from vividmed.metrics.entailment import Entailment, TaxonomyEntailment
from vividmed.metrics.masks import MASK, check_grids, decode_mask
from vividmed.metrics.metric import ItemMetric, check_lengths, f1, mean_of, ratio, resampled_means
from vividmed.metrics.segmentation import dice

HIT_DICE = 0.1
"""Dice from which on a phrase counts as hit (ReXGroundingCT)."""
INSTANCE_DICE = 0.2
"""Dice from which on two connected components match (ReXGroundingCT)."""
SPATIAL_PRECISION = 0.5
"""Share of a phrase's own voxels that must lie in its evidence, exclusive (RadFact)."""

_BOXES = datasets.List(datasets.List(datasets.Value("float32"), length=6))
PLACE = {"mask": MASK, "boxes": _BOXES}
"""Features of the place of a phrase: a mask or None, and boxes in voxel corners (z0, y0, x0, z1, y1, x1)."""


class PhraseGrounding(ItemMetric):
    """Places found for given phrases, each against what is there.

    ``hit_rate``: share of present phrases with a mask whose Dice is at least 0.1 (ReXGroundingCT).
    ``instance_precision``, ``instance_recall``, ``instance_f1``: connected components of all present phrases, matched
    one to one at a Dice of 0.2, best first.
    ``suppression``: share of absent phrases for which nothing was drawn.
    ``absent_voxels``: mean share of the image that was drawn for absent phrases.
    ``box_accuracy``: share of present phrases with boxes whose best box reaches an IoU of 0.5 with a true box.

    A reference without mask and boxes is an absent phrase.
    """

    description = "hits, instances and suppression of phrases"
    features = datasets.Features({"predictions": PLACE, "references": PLACE})

    def score_items(
        self, predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        check_lengths(predictions, references)
        return [_score_phrase(*pair) for pair in zip(predictions, references, strict=True)]

    def count(self, items: Sequence[Mapping[str, Any]], figure: str) -> int:
        key = {"hit_rate": "hit", "box_accuracy": "box"}.get(figure)
        if key is None:
            key = "found" if figure.startswith("instance") else "drawn"
        return sum(key in item for item in items)

    def aggregate(self, items: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        means = mean_of(items)
        return _phrase_figures({name: means.get(name, float("nan")) for name in _OF_PHRASE})

    def aggregate_resamples(
        self, items: Sequence[Mapping[str, Any]], draws: Sequence[Sequence[int]]
    ) -> dict[str, list[float]]:
        means = resampled_means(items, draws)
        nowhere = [float("nan")] * len(draws)
        columns = [means.get(name, nowhere) for name in _OF_PHRASE]
        figures = [
            _phrase_figures(dict(zip(_OF_PHRASE, row, strict=True))) for row in zip(*columns, strict=True)
        ]
        return {name: [each[name] for each in figures] for name in figures[0]} if figures else {}


_OF_PHRASE = ("hit", "box", "suppressed", "drawn", "matched", "found", "true")
"""What is known of a phrase; each is missing where the phrase does not have it."""


def _phrase_figures(means: Mapping[str, float]) -> dict[str, float]:
    """Figures by the means over the phrases that have each value."""
    true = np.nan_to_num(means["true"])
    precision, recall = ratio(means["matched"], np.nan_to_num(means["found"])), ratio(means["matched"], true)
    return {
        "hit_rate": means["hit"],
        "box_accuracy": means["box"],
        "suppression": means["suppressed"],
        "absent_voxels": means["drawn"],
        "instance_precision": precision,
        "instance_recall": recall,
        # Nothing found where something is: an F1 of 0, although precision is not defined.
        "instance_f1": f1(0.0 if np.isnan(precision) else precision, recall) if true else float("nan"),
    }


def _score_phrase(prediction: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, Any]:
    true_mask, boxes = reference["mask"], np.asarray(reference["boxes"], dtype=np.float32).reshape(-1, 6)
    found_boxes = np.asarray(prediction["boxes"], dtype=np.float32).reshape(-1, 6)
    found = None if prediction["mask"] is None else decode_mask(prediction["mask"])
    if true_mask is None and not len(boxes):
        drawn = 0.0 if found is None else float(found.mean())
        return {"suppressed": float(drawn == 0 and not len(found_boxes)), "drawn": drawn}
    score: dict[str, Any] = {}
    if true_mask is not None:
        truth = decode_mask(true_mask)
        found = np.zeros_like(truth) if found is None else found
        check_grids(found, truth)
        score |= {"hit": float(dice(found, truth) >= HIT_DICE), **_count_instances(found, truth)}
    if len(boxes):
        score["box"] = float(bool(len(found_boxes)) and float(box_iou(found_boxes[:1], boxes).max()) >= 0.5)
    return score


def _count_instances(found: np.ndarray, truth: np.ndarray) -> dict[str, int]:
    """Connected components of both masks, and how many match."""
    neighbours = ndimage.generate_binary_structure(3, 3)
    (found_labels, found_count), (true_labels, true_count) = (
        ndimage.label(mask, neighbours) for mask in (found, truth)
    )
    sizes = [
        np.bincount(labels.ravel(), minlength=count + 1)
        for labels, count in ((found_labels, found_count), (true_labels, true_count))
    ]
    shared = found & truth
    pairs = np.stack([found_labels[shared], true_labels[shared]], axis=1)
    candidates = []
    for (one, other), common in (
        zip(*np.unique(pairs, axis=0, return_counts=True), strict=True) if len(pairs) else ()
    ):
        overlap = 2 * common / (sizes[0][one] + sizes[1][other])
        if overlap >= INSTANCE_DICE:
            candidates.append((overlap, int(one), int(other)))
    matched_found, matched_true = set(), set()
    for _, one, other in sorted(candidates, reverse=True):
        if one not in matched_found and other not in matched_true:
            matched_found.add(one)
            matched_true.add(other)
    return {"matched": len(matched_found), "found": found_count, "true": true_count}


class RadFact(ItemMetric):
    """RadFact's six figures for grounded reports (Bannur et al., 2024, MAIRA-2), in 2D and 3D.

    A phrase is *entailed* if the other report supports it, and *spatially entailed* if besides more than half of its
    own voxels lie in the places of the supporting phrases. Precision asks the phrases of the prediction, recall those of
    the reference.

    ``logical_*``: entailed / all phrases. ``grounding_*``: spatially entailed / entailed phrases with a place.
    ``spatial_*``: spatially entailed / all phrases with a place. Each is a mean over reports, where its denominator is
    not 0; ``*_f1`` is the harmonic mean of the two means, 0 where only one of them is defined.

    Each prediction and reference is ``{"phrases": [...], "places": [...], "size": [D, H, W]}``.

    Args:
        entailment: the judge; by default names and synonyms of the taxonomy. Figures of different judges do not compare.
    """

    description = "RadFact: logical, grounding and spatial precision and recall"
    features = datasets.Features(
        {
            side: {
                "phrases": datasets.List(datasets.Value("string")),
                "places": datasets.List(PLACE),
                "size": datasets.List(datasets.Value("int32"), length=3),
            }
            for side in ("predictions", "references")
        }
    )

    def __init__(self, *, entailment: Entailment | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.entailment = entailment or TaxonomyEntailment()

    def scorer(self) -> Mapping[str, Any]:
        identity = getattr(self.entailment, "identity", dict)
        return {"entailment": self.entailment.name, **identity()}

    def score_items(
        self, predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, float]]:
        check_lengths(predictions, references)
        return [
            {
                **self._one_way(prediction, reference, "precision"),
                **self._one_way(reference, prediction, "recall"),
            }
            for prediction, reference in zip(predictions, references, strict=True)
        ]

    def _one_way(self, asked: Mapping[str, Any], other: Mapping[str, Any], name: str) -> dict[str, float]:
        entailed = placed = entailed_placed = spatial = 0
        evidence_places = [_voxels(place, other["size"]) for place in other["places"]]
        for phrase, place in zip(asked["phrases"], asked["places"], strict=True):
            evidence = self.entailment(phrase, other["phrases"])
            voxels = _voxels(place, asked["size"])
            entailed += bool(evidence)
            if voxels is None:
                continue
            placed += 1
            entailed_placed += bool(evidence)
            spatial += _covers([evidence_places[number] for number in evidence], voxels)
        return {
            f"logical_{name}": ratio(entailed, len(asked["phrases"])),
            f"grounding_{name}": ratio(spatial, entailed_placed),
            f"spatial_{name}": ratio(spatial, placed),
        }

    def count(self, items: Sequence[Mapping[str, float]], figure: str) -> int:
        """Number of reports in which a share, or one of the two shares of an F1, is defined."""
        kind, _, end = figure.rpartition("_")
        names = [f"{kind}_precision", f"{kind}_recall"] if end == "f1" else [figure]
        return sum(not all(np.isnan(item[name]) for name in names) for item in items)

    def aggregate(self, items: Sequence[Mapping[str, float]]) -> dict[str, float]:
        return _radfact_figures(mean_of(items))

    def aggregate_resamples(
        self, items: Sequence[Mapping[str, float]], draws: Sequence[Sequence[int]]
    ) -> dict[str, list[float]]:
        means = resampled_means(items, draws)
        figures = [
            _radfact_figures(dict(zip(means, row, strict=True))) for row in zip(*means.values(), strict=True)
        ]
        return {name: [each[name] for each in figures] for name in figures[0]} if figures else {}


def _radfact_figures(means: Mapping[str, float]) -> dict[str, float]:
    """Precision, recall and F1 of each kind, by the means of precision and recall."""
    figures: dict[str, float] = {}
    for kind in ("logical", "grounding", "spatial"):
        precision, recall = means[f"{kind}_precision"], means[f"{kind}_recall"]
        figures |= {
            f"{kind}_precision": precision,
            f"{kind}_recall": recall,
            # One report says something and the other nothing: an F1 of 0, although one of the means is not defined.
            f"{kind}_f1": float("nan")
            if np.isnan(precision) and np.isnan(recall)
            else f1(float(np.nan_to_num(precision)), float(np.nan_to_num(recall))),
        }
    return figures


def _voxels(place: Mapping[str, Any], size: Sequence[int]) -> np.ndarray | None:
    """(D, H, W) bool of a phrase's mask and boxes; None for a phrase without a place."""
    if place["mask"] is None and not len(place["boxes"]):
        return None
    voxels = np.zeros(size, dtype=bool)
    if place["mask"] is not None:
        mask = decode_mask(place["mask"])
        check_grids(mask, voxels)
        voxels |= mask
    for box in place["boxes"]:
        low, high = np.floor(box[:3]).astype(int), np.ceil(box[3:]).astype(int)
        voxels[tuple(slice(max(0, a), max(0, b)) for a, b in zip(low, high, strict=True))] = True
    return voxels


def _covers(evidence: Sequence[np.ndarray | None], voxels: np.ndarray) -> bool:
    """Whether more than half of the voxels lie in the evidence."""
    known = [place for place in evidence if place is not None]
    for place in known:
        check_grids(place, voxels)
    if not known or not voxels.any():
        return False
    return float((np.logical_or.reduce(known) & voxels).sum() / voxels.sum()) > SPATIAL_PRECISION
