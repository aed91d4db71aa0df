"""Findings that a report states, by rules that need no weights."""

from collections.abc import Mapping, Sequence
from typing import Any

from vividmed.data.pseudo_labels.tagging import Tagger
from vividmed.metrics.metric import ItemMetric, check_lengths, nan_mean, ratio


class FindingF1(ItemMetric):
    """Agreement of the anomalies that prediction and reference state as present or uncertain.

    The labeller is :class:`vividmed.data.pseudo_labels.tagging.Tagger`. Negated findings are left out, uncertain ones
    count as positive, as in most uses of CheXbert. What a finding is a kind of counts with it, so that *lung nodule* is
    partly right for *lung cancer*.

    ``finding_f1_micro``, ``finding_precision``, ``finding_recall``: over all findings of all reports.
    ``finding_f1_macro``: mean over the findings that a reference has.

    Args:
        tagger: finds the targets; that of the package's taxonomy by default.
    """

    description = "F1 of findings by a rule-based labeller"

    def __init__(self, *, tagger: Tagger | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.tagger = tagger or Tagger()

    def score_items(
        self, predictions: Sequence[str], references: Sequence[str]
    ) -> list[Mapping[str, set[str]]]:
        check_lengths(predictions, references)
        return [
            {"found": self._findings(prediction), "true": self._findings(reference)}
            for prediction, reference in zip(predictions, references, strict=True)
        ]

    def _findings(self, text: str) -> set[str]:
        taxonomy = self.tagger.taxonomy
        names = self.tagger.findings(text)
        above = {name for finding in names for name in taxonomy.ancestors(finding)}
        return names | {name for name in above if taxonomy[name].category == "anomaly"}

    def aggregate(self, items: Sequence[Mapping[str, set[str]]]) -> dict[str, float]:
        counts: dict[str, list[int]] = {}
        for item in items:
            for name in item["found"] | item["true"]:
                count = counts.setdefault(name, [0, 0, 0])
                count[0] += name in item["found"] and name in item["true"]
                count[1] += name in item["found"]
                count[2] += name in item["true"]
        right, found, true = (sum(count[place] for count in counts.values()) for place in range(3))
        return {
            "finding_f1_micro": ratio(2 * right, found + true),
            "finding_f1_macro": nan_mean(
                [2 * both / (said + real) for both, said, real in counts.values() if real]
            ),
            "finding_precision": ratio(right, found),
            "finding_recall": ratio(right, true),
        }
