"""Pictures of scores: Dice of each target, precision and recall of boxes, reliability of their scores."""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vividmed.files import write_atomically
from vividmed.metrics.detection import Detection
from vividmed.metrics.predictions import Prediction
from vividmed.metrics.segmentation import Segmentation
from vividmed.metrics.selection import boxes, masks

_MOST_TARGETS = 40
_MOST_CURVES = 8
_IOU = 0.5
_BINS = 10


def draw_plots(predictions: Sequence[Prediction], folder: Path) -> list[Path]:
    """Draw what the predictions have: masks give one picture, boxes two.

    Args:
        predictions: of one task.
        folder: where the PNG files go.

    Returns:
        The files that were written: ``dice_by_target.png``, ``precision_recall.png``, ``reliability.png``.

    Raises:
        VividMedError: the folder cannot be written.
    """
    if any(prediction.task != "ground" for prediction in predictions):
        return []
    drawn = {}
    if dice := _dice_by_target(predictions):
        drawn["dice_by_target.png"] = _draw_dice(dice)
    matched = _matched_boxes(predictions)
    if any(item["truths"] for item in matched):
        drawn["precision_recall.png"] = _draw_precision_recall(matched)
        drawn["reliability.png"] = _draw_reliability(matched)
    for name, content in drawn.items():
        write_atomically(folder / name, content)
    return [folder / name for name in drawn]


def _dice_by_target(predictions: Sequence[Prediction]) -> dict[str, list[float]]:
    """Dice of each mask, by target, the best target first."""
    selected = masks(predictions)
    items = Segmentation(surfaces=False).score_items(selected.predicted, selected.references)
    by_target: dict[str, list[float]] = {}
    for name, item in zip(selected.targets, items, strict=True):
        by_target.setdefault(name, []).append(item["dice"])
    return dict(sorted(by_target.items(), key=lambda pair: -float(np.mean(pair[1]))))


def _matched_boxes(predictions: Sequence[Prediction]) -> list[dict[str, Any]]:
    selected = boxes(predictions)
    return Detection().score_items(selected.predicted, selected.references)


def _draw_dice(by_target: Mapping[str, Sequence[float]]) -> bytes:
    names = list(by_target)[:_MOST_TARGETS]

    def draw(axes: Any) -> None:
        places = np.arange(len(names))[::-1]
        values = [by_target[name] for name in names]
        axes.barh(places, [np.mean(each) for each in values], color="#9ecae1", height=0.7, label="mean")
        for place, each in zip(places, values, strict=True):
            axes.plot(each, np.full(len(each), place), "o", color="#08519c", markersize=3, alpha=0.6)
        axes.plot([], [], "o", color="#08519c", markersize=3, label="one image")
        axes.set_yticks(places, [f"{name} ({len(by_target[name])})" for name in names])
        axes.set(xlim=(0, 1.02), xlabel="Dice", title="Dice by target (number of images)")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.6 / (0.9 + 0.25 * len(names))), ncols=2)

    return _figure(draw, size=(7, 2.4 + 0.25 * len(names)))


def _curve(items: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision at each score, the highest first."""
    scores = np.concatenate([item["scores"] for item in items])
    right = np.concatenate([item["right"][_IOU] for item in items])[np.argsort(-scores, kind="stable")]
    truths = sum(item["truths"] for item in items)
    hits = right.cumsum()
    return hits / truths, hits / np.arange(1, len(right) + 1)


def _draw_precision_recall(items: Sequence[Mapping[str, Any]]) -> bytes:
    by_target: dict[str, list[Mapping[str, Any]]] = {}
    for item in items:
        by_target.setdefault(item["target"], []).append(item)
    counted = {name: group for name, group in by_target.items() if sum(item["truths"] for item in group)}
    largest = sorted(counted, key=lambda name: -sum(item["truths"] for item in counted[name]))[:_MOST_CURVES]

    def draw(axes: Any) -> None:
        for name in largest:
            truths = sum(item["truths"] for item in counted[name])
            axes.step(*_curve(counted[name]), where="post", label=f"{name} ({truths})", alpha=0.8)
        if len(counted) > 1:
            every = [item for group in counted.values() for item in group]
            axes.step(*_curve(every), where="post", color="black", linewidth=2, label="all boxes")
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
        axes.set_title(f"Precision and recall at IoU {_IOU} (number of true boxes)")
        axes.legend(fontsize="small")

    return _figure(draw)


def _draw_reliability(items: Sequence[Mapping[str, Any]]) -> bytes:
    scores = np.concatenate([item["scores"] for item in items])
    right = np.concatenate([item["right"][_IOU] for item in items])
    bins = np.clip((scores * _BINS).astype(int), 0, _BINS - 1)
    counts = np.bincount(bins, minlength=_BINS)
    filled = counts > 0

    def draw(axes: Any) -> None:
        shares = np.bincount(bins, weights=right, minlength=_BINS)[filled] / counts[filled]
        means = np.bincount(bins, weights=scores, minlength=_BINS)[filled] / counts[filled]
        axes.plot([0, 1], [0, 1], "--", color="grey", label="scores that mean what they say")
        axes.plot(means, shares, "o-", color="#08519c", label="boxes")
        for mean, share, count in zip(means, shares, counts[filled], strict=True):
            axes.annotate(str(count), (mean, share), textcoords="offset points", xytext=(4, 6), fontsize=8)
        gap = float(np.abs(means - shares) @ counts[filled] / max(1, counts.sum()))
        axes.set(
            xlim=(0, 1), ylim=(-0.02, 1.08), xlabel="score", ylabel=f"share with an IoU of {_IOU} or more"
        )
        axes.set_title(f"Reliability of scores (numbers: boxes; calibration error {gap:.2f})")
        axes.legend()

    return _figure(draw)


def _figure(draw: Callable[[Any], None], size: tuple[float, float] = (6.5, 5)) -> bytes:
    # Without pyplot: no window system is needed and no global state is left.
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    draw(axes)
    axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
