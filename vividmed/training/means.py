"""Averages of named numbers that not every batch, or not every process, has."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from accelerate.utils import gather_object

from vividmed.models.phrases.grounding import GroundingLabels


class MeanMeter:
    """Collects named observations on the device and averages them on request, over all processes.

    Processes may have seen different names, so sums and counts travel as objects: no process waits for a tensor that
    another one does not have.
    """

    def __init__(self) -> None:
        self._values: dict[str, list[torch.Tensor]] = defaultdict(list)

    def add(self, values: Mapping[str, torch.Tensor]) -> None:
        """Record one scalar per name; NaN means that there was nothing to observe."""
        for name, value in values.items():
            self._values[name].append(value.detach().float())

    def reduce(self) -> dict[str, float]:
        """Return the averages since the last call, sorted by name; every process takes part."""
        stacked = [torch.stack(values) for values in self._values.values()]
        sums = torch.stack([each.nansum() for each in stacked]).tolist() if stacked else []
        counts = torch.stack([(~each.isnan()).sum() for each in stacked]).tolist() if stacked else []
        own = dict(zip(self._values, zip(sums, counts, strict=True), strict=True))
        self._values.clear()
        merged: dict[str, tuple[float, int]] = {}
        for part in gather_object([own]):
            for name, (total, count) in part.items():
                before = merged.get(name, (0.0, 0))
                merged[name] = (before[0] + total, before[1] + count)
        return {name: total / count for name, (total, count) in sorted(merged.items()) if count}


def target_dice(
    mask_logits: Sequence[torch.Tensor] | None,
    labels: Sequence[GroundingLabels],
    names: Sequence[Sequence[str]],
) -> list[dict[str, torch.Tensor]]:
    """Dice of each predicted mask, by the name of its target.

    Args:
        mask_logits: for each sample (n, D, H, W), as the model's output has them; None without a segmenter.
        labels: labels of each sample.
        names: for each sample the targets of its masks, in the order of ``mask_phrases``.

    Returns:
        One dict per mask with the name as key; NaN for absent targets, which have no Dice.
    """
    found: list[dict[str, torch.Tensor]] = []
    if mask_logits is None:
        return found
    for masks, label, sample_names in zip(mask_logits, labels, names, strict=True):
        if not len(masks):
            continue
        truth = label["masks"].to(masks.device)
        valid = ~label["ignore"].to(masks.device) if "ignore" in label else torch.ones_like(truth)
        inside, truth = (masks > 0) & valid, truth & valid
        size = truth.flatten(1).sum(1)
        dice = 2 * (inside & truth).flatten(1).sum(1) / (inside.flatten(1).sum(1) + size)
        found += [
            {f"dice/{name}": value}
            for name, value in zip(sample_names, dice.where(size > 0, torch.nan), strict=True)
        ]
    return found
