"""Findings as yes or no for each condition: F1, and the two rates of missed findings that are easily confused."""

from collections.abc import Mapping, Sequence

import numpy as np

from vividmed.metrics.metric import nan_mean, ratio


def classification_figures(found: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Figures over items and conditions.

    ``f1_macro`` and ``f1_micro``: 2 TP / (2 TP + FP + FN), averaged over conditions or of the sums; a condition that is
    neither found nor true has an F1 of 0, as in scikit-learn.

    ``false_negative_rate_*``: FN / (FN + TP), the share of true findings that is missed.

    ``false_omission_rate_*``: FN / (FN + TN), the share of denied findings that is true. The published evaluation calls
    this "FNR".

    Macro rates are means over the conditions whose denominator is not 0.

    Args:
        found: (items, conditions) bool of the predictions.
        true: (items, conditions) bool of the references.
    """
    hits = (found & true).sum(0)
    false_positives, missed = (found & ~true).sum(0), (~found & true).sum(0)
    denied = (~found).sum(0)
    f1s = [
        0.0 if not (2 * a + b + c) else 2 * a / (2 * a + b + c)
        for a, b, c in zip(hits, false_positives, missed, strict=True)
    ]
    total = 2 * hits.sum() + false_positives.sum() + missed.sum()
    return {
        "f1_macro": float(np.mean(f1s)),
        "f1_micro": float(2 * hits.sum() / total) if total else 0.0,
        "false_omission_rate_macro": nan_mean([ratio(a, b) for a, b in zip(missed, denied, strict=True)]),
        "false_omission_rate_micro": float(ratio(missed.sum(), denied.sum())),
        "false_negative_rate_macro": nan_mean([ratio(a, a + b) for a, b in zip(missed, hits, strict=True)]),
        "false_negative_rate_micro": float(ratio(missed.sum(), missed.sum() + hits.sum())),
    }


def f1_by_condition(found: np.ndarray, true: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """F1 of each condition that is found or true in an item."""
    sums = found.sum(0) + true.sum(0)
    hits = (found & true).sum(0)
    return {name: float(2 * hit / total) for name, hit, total in zip(names, hits, sums, strict=True) if total}


def stacked(items: Sequence[Mapping[str, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and references of all items, each (items, conditions) bool."""
    return np.stack([item["found"] for item in items]), np.stack([item["true"] for item in items])
