"""RadCliQ (Yu et al., 2023): an estimate of the number of errors in a report, from four other metrics."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sacrebleu.metrics import BLEU

from vividmed.metrics.learned.bertscore import BertScorer
from vividmed.metrics.learned.chexbert import CheXbertLabeller
from vividmed.metrics.learned.radgraph import RadGraphAnnotator, radgraph_scores
from vividmed.metrics.learned.weights import file_hash
from vividmed.metrics.metric import ItemMetric, check_lengths, mean_of

FEATURES = ("RadGraph", "BERTScore", "CheXbert similarity", "BLEU-2")

# Mean, scale and coefficient of each feature, and the intercept, of the authors' fitted models.
_V0 = (
    np.array([0.5398376019, 0.6312549595, 0.7716797867, 0.4607372065]),
    np.array([0.3018344441, 0.2246695075, 0.2475033381, 0.3033667094]),
    np.array([-0.4796252645, -0.6762170542, -0.4636657516, 0.2165861905]),
    1.6416666667,
)
_V1 = (
    np.array([0.5379231241, 0.6175725628, 0.7647942121, 0.4473833540]),
    np.array([0.3028258411, 0.2243093846, 0.2539439110, 0.2989271671]),
    np.array([-0.3770836826, -0.3703000997, -0.2526162179, 4.3e-12]),
    2.5e-10,
)
_BLEU2: dict[str, Any] = {"max_ngram_order": 2, "smooth_method": "none", "effective_order": False}


def radcliq(features: Sequence[float], *, version: str) -> float:
    """RadCliQ of one report; lower is better.

    Args:
        features: in the order of ``FEATURES``.
        version: ``v0`` or ``v1``. In ``v1``, BLEU has no weight.
    """
    mean, scale, coefficients, intercept = _V0 if version == "v0" else _V1
    return float((np.asarray(features) - mean) / scale @ coefficients + intercept)


class RadCliQ(ItemMetric):
    """RadCliQ of each report, averaged.

    ``radcliq_v0``, ``radcliq_v1``: with the features of the authors: mean of the F1 of RadGraph's entities and relations,
    BERTScore rescaled with the package's baseline, cosine of CheXbert's embeddings, BLEU-2 of lower-cased words.
    ``radcliq_v0_published``, ``radcliq_v1_published``: with those that VividMed's evaluation used: partial RadGraph F1,
    BERTScore of lower-cased texts without rescaling, BLEU-2 with case. They compare with no other work.

    Args:
        chexbert: folder, see :class:`~vividmed.metrics.learned.chexbert.CheXbertLabeller`.
        radgraph: folder, see :class:`~vividmed.metrics.learned.radgraph.RadGraphAnnotator`.
        bertscore: folder of distilroberta-base.
        annotator: finds entities; that of ``radgraph`` by default.
    """

    description = "RadCliQ, lower is better"

    def __init__(
        self,
        *,
        chexbert: str | Path,
        radgraph: str | Path = "",
        bertscore: str | Path,
        annotator: Any = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.labeller = CheXbertLabeller(chexbert)
        self.annotator = annotator or RadGraphAnnotator(radgraph)
        self.bert_scorer = BertScorer(bertscore)

    def scorer(self) -> Mapping[str, Any]:
        path = getattr(self.annotator, "path", None)
        return {
            "chexbert sha256": file_hash(self.labeller.path),
            **({} if path is None else {"radgraph sha256": file_hash(path)}),
            **{f"bertscore {name}": value for name, value in self.bert_scorer.identity().items()},
        }

    def score_items(self, predictions: Sequence[str], references: Sequence[str]) -> list[dict[str, float]]:
        check_lengths(predictions, references)
        graphs = list(map(radgraph_scores, self.annotator(predictions), self.annotator(references)))
        lower = ([text.lower() for text in texts] for texts in (predictions, references))
        plain, baseline = self.bert_scorer(predictions, references), self.bert_scorer.baseline()
        items = []
        for graph, bert, bert_lower, prediction, reference in zip(
            graphs, plain, self.bert_scorer(*lower), predictions, references, strict=True
        ):
            similarity = _cosine(self.labeller.embed(prediction), self.labeller.embed(reference))
            standard = (
                (graph["entities"] + graph["relations"]) / 2,
                (bert - baseline) / (1 - baseline),
                similarity,
                _bleu2(*(text.lower().replace(".", " .") for text in (prediction, reference)), tokens="none"),
            )
            published = (
                graph["partial"],
                bert_lower,
                similarity,
                _bleu2(prediction, reference, tokens="13a"),
            )
            items.append(
                {
                    f"radcliq_{version}{ending}": radcliq(features, version=version)
                    for ending, features in (("", standard), ("_published", published))
                    for version in ("v0", "v1")
                }
            )
        return items

    def aggregate(self, items: Sequence[Mapping[str, float]]) -> dict[str, float]:
        return mean_of(items)


def _bleu2(prediction: str, reference: str, *, tokens: str) -> float:
    if not prediction.strip() or not reference.strip():
        return 0.0
    return BLEU(tokenize=tokens, **_BLEU2).corpus_score([prediction], [[reference]]).score / 100


def _cosine(first: np.ndarray, second: np.ndarray) -> float:
    return float(first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))
