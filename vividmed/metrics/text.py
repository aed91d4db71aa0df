"""Overlap of generated and reference text: BLEU, ROUGE, METEOR, CIDEr.

Both texts are lower-cased. An item whose prediction is empty scores 0. Definitions as in the published evaluation:
each item is scored by itself, and the figure is the mean over items.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from nltk.tokenize import NLTKWordTokenizer
from nltk.translate.meteor_score import single_meteor_score
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU

from vividmed.metrics.metric import ItemMetric, MeanMetric, check_lengths, mean_of
from vividmed.metrics.wordnet import find_wordnet

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


class Bleu(MeanMetric):
    """BLEU-1 to BLEU-4 of each item (Papineni et al., 2002), without smoothing, mteval-13a tokens.

    A figure is 0 where any n-gram order has no match, so BLEU-4 is 0 for answers shorter than four tokens.
    """

    description = "BLEU of single items, averaged"

    @cached_property
    def _scorers(self) -> dict[str, BLEU]:
        return {
            f"bleu{order}": BLEU(
                max_ngram_order=order, smooth_method="none", effective_order=False, tokenize="13a"
            )
            for order in (1, 2, 3, 4)
        }

    def score_item(self, prediction: str, reference: str) -> dict[str, float]:
        prediction, reference = prediction.lower(), reference.lower()
        if not prediction.strip() or not reference.strip():
            return dict.fromkeys(self._scorers, 0.0)
        # Over a corpus of one pair; `sentence_score` warns that it smoothes otherwise.
        return {
            name: scorer.corpus_score([prediction], [[reference]]).score / 100
            for name, scorer in self._scorers.items()
        }


class Rouge(MeanMetric):
    """F-measure of ROUGE-1, ROUGE-2 and ROUGE-L (Lin, 2004), without stemming."""

    description = "ROUGE of single items, averaged"

    @cached_property
    def _scorer(self) -> RougeScorer:
        return RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=False)

    def score_item(self, prediction: str, reference: str) -> dict[str, float]:
        scores = self._scorer.score(reference.lower(), prediction.lower())
        return {name: score.fmeasure for name, score in scores.items()}


class Meteor(MeanMetric):
    """METEOR (Banerjee and Lavie, 2005) as nltk computes it: alpha 0.9, beta 3, gamma 0.5, WordNet synonyms.

    Raises:
        VividMedError: WordNet is not installed (when the first item is scored).
    """

    description = "METEOR of single items, averaged"

    @cached_property
    def _wordnet(self) -> Any:
        return find_wordnet()

    def score_item(self, prediction: str, reference: str) -> dict[str, float]:
        tokens = [_words(text.lower()) for text in (reference, prediction)]
        if not all(tokens):
            return {"meteor": 0.0}
        return {"meteor": single_meteor_score(*tokens, wordnet=self._wordnet)}


class Cider(ItemMetric):
    """CIDEr-D (Vedantam et al., 2015) with one reference per item, n-grams of length 1 to 4, sigma 6.

    Document frequencies come from the references of the same call, so the figure depends on the whole set: compare it
    only over the same items. Words are lower-cased and freed of punctuation; they are not stemmed.
    """

    description = "CIDEr-D"
    sigma = 6.0

    def score_items(self, predictions: Sequence[str], references: Sequence[str]) -> list[Mapping[str, float]]:
        check_lengths(predictions, references)
        counted = [_ngrams(reference) for reference in references]
        frequencies = Counter(ngram for grams in counted for order in grams for ngram in order)
        weights = {
            ngram: math.log(len(references)) - math.log(number) for ngram, number in frequencies.items()
        }
        rarest = math.log(len(references)) if references else 0.0
        return [
            {"cider": self._similarity(_ngrams(prediction), grams, weights, rarest)}
            for prediction, grams in zip(predictions, counted, strict=True)
        ]

    def aggregate(self, items: Sequence[Mapping[str, float]]) -> dict[str, float]:
        return mean_of(items)

    def _similarity(
        self,
        prediction: list[Counter[tuple[str, ...]]],
        reference: list[Counter[tuple[str, ...]]],
        weights: Mapping[tuple[str, ...], float],
        rarest: float,
    ) -> float:
        """Ten times the clipped cosine of tf-idf vectors, averaged over orders, less for another length."""
        difference = prediction[0].total() - reference[0].total()
        penalty = math.exp(-(difference**2) / (2 * self.sigma**2))
        total = 0.0
        for said, wanted in zip(prediction, reference, strict=True):
            vectors = [
                {gram: number * weights.get(gram, rarest) for gram, number in grams.items()}
                for grams in (said, wanted)
            ]
            norms = [math.sqrt(sum(value**2 for value in vector.values())) for vector in vectors]
            if all(norms):
                shared = sum(
                    min(value, vectors[1][gram]) * vectors[1][gram]
                    for gram, value in vectors[0].items()
                    if gram in vectors[1]
                )
                total += shared / (norms[0] * norms[1])
        return 10 * penalty * total / len(reference)


def _words(text: str) -> list[str]:
    """Words as ``nltk.word_tokenize`` gives them, sentence by sentence, without its downloaded sentence splitter."""
    tokenizer = NLTKWordTokenizer()
    return [word for sentence in _SENTENCE_END.split(text.strip()) for word in tokenizer.tokenize(sentence)]


def _ngrams(text: str) -> list[Counter[tuple[str, ...]]]:
    """Counts of n-grams of length 1 to 4."""
    words = re.findall(r"\w+", text.lower())
    return [
        Counter(tuple(words[i : i + order]) for i in range(len(words) - order + 1)) for order in range(1, 5)
    ]
