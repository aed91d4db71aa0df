"""Text metrics against independent implementations and figures that are known."""

import re
from collections import Counter

import numpy as np
import pytest
from nltk.translate.bleu_score import sentence_bleu

from vividmed.errors import VividMedError
from vividmed.metrics.text import Bleu, Cider, Meteor, Rouge
from vividmed.metrics.wordnet import SYSTEM_FOLDERS, find_wordnet

PAIRS = [
    ("yes", "yes"),
    ("no", "yes"),
    ("right lung", "the right lung"),
    ("There is a small nodule in the left lung.", "A small nodule is in the left lung."),
    ("No pleural effusion or pneumothorax.", "No pneumothorax. No pleural effusion."),
    ("The heart size is normal.", "Heart size is normal."),
    ("Findings: the liver is enlarged, with a 3.5 cm cyst.", "The liver has a cyst of 3.5 cm."),
    ("mass", "There is a large mass in the right upper lobe"),
    ("the the the the", "the lung is clear"),
    ("axial", "coronal"),
    ("CT", "computed tomography"),
    ("cardiomegaly and oedema", "cardiomegaly, oedema, effusion"),
    ("Bilateral effusions (small).", "Small bilateral effusions."),
    ("a b c d e f", "a b c d e f"),
    ("left-sided chest tube", "left-sided chest tube in place"),
]


def tokens(text):
    return re.sub(r"([^\w\s.,-]|[.,](?!\d))", r" \1 ", text.lower()).split()


@pytest.mark.filterwarnings("ignore:.*overlaps")
@pytest.mark.parametrize(("prediction", "reference"), PAIRS)
def test_bleu_is_that_of_another_implementation(prediction, reference):
    figures = Bleu().compute(predictions=[prediction], references=[reference])
    said, wanted = tokens(prediction), tokens(reference)
    for order in (1, 2, 3, 4):
        matches = [
            sentence_bleu([wanted], said, weights=tuple(float(i == n) for i in range(order)))
            for n in range(order)
        ]
        possible = len(said) >= order and min(matches) > 1e-9
        expected = sentence_bleu([wanted], said, weights=(1 / order,) * order) if possible else 0
        assert figures[f"bleu{order}"] == pytest.approx(expected, abs=1e-6)


def longest_common(first, second):
    table = np.zeros((len(first) + 1, len(second) + 1), dtype=int)
    for i, one in enumerate(first):
        for j, other in enumerate(second):
            table[i + 1, j + 1] = table[i, j] + 1 if one == other else max(table[i, j + 1], table[i + 1, j])
    return table[-1, -1]


@pytest.mark.parametrize(("prediction", "reference"), PAIRS)
def test_rouge_l_is_the_f_measure_of_the_longest_common_subsequence(prediction, reference):
    said, wanted = (re.findall(r"[a-z0-9]+", text.lower()) for text in (prediction, reference))
    common = longest_common(said, wanted)
    figures = Rouge().compute(predictions=[prediction], references=[reference])
    assert figures["rougeL"] == pytest.approx(2 * common / (len(said) + len(wanted)))


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize(("prediction", "reference"), PAIRS)
def test_rouge_n_is_the_f_measure_of_shared_ngrams(prediction, reference, order):
    said, wanted = (
        Counter(zip(*(words[i:] for i in range(order)), strict=False))
        for words in (re.findall(r"[a-z0-9]+", text.lower()) for text in (prediction, reference))
    )
    total = said.total() + wanted.total()
    figures = Rouge().compute(predictions=[prediction], references=[reference])
    assert figures[f"rouge{order}"] == pytest.approx(2 * (said & wanted).total() / total if total else 0)


def cider_of_matrices(predictions, references):
    """CIDEr-D by dense matrices of counts: rows are texts, columns n-grams."""
    scores = np.zeros(len(references))
    for order in (1, 2, 3, 4):
        grams = [
            [tuple(words[i : i + order]) for i in range(len(words) - order + 1)]
            for words in (re.findall(r"\w+", text.lower()) for text in (*predictions, *references))
        ]
        vocabulary = {
            gram: place for place, gram in enumerate(dict.fromkeys(g for each in grams for g in each))
        }
        counts = np.zeros((len(grams), len(vocabulary)))
        for row, each in enumerate(grams):
            for gram in each:
                counts[row, vocabulary[gram]] += 1
        said, wanted = np.split(counts, 2)
        frequency = np.maximum(1, (wanted > 0).sum(0))
        weights = np.log(len(references)) - np.log(frequency)
        found, true = said * weights, wanted * weights
        norms = np.linalg.norm(found, axis=1) * np.linalg.norm(true, axis=1)
        cosine = np.divide(
            (np.minimum(found, true) * true).sum(1), norms, out=np.zeros(len(norms)), where=norms > 0
        )
        if order == 1:
            penalty = np.exp(-((said.sum(1) - wanted.sum(1)) ** 2) / 72)
        scores += cosine * penalty
    return 10 * scores.mean() / 4


def test_cider_is_that_of_an_implementation_with_matrices():
    predictions, references = (list(texts) for texts in zip(*PAIRS, strict=True))
    figures = Cider().compute(predictions=predictions, references=references)
    assert figures["cider"] == pytest.approx(cider_of_matrices(predictions, references), abs=1e-9)


@pytest.mark.skipif(
    not any((folder / "index.sense").is_file() for folder in SYSTEM_FOLDERS),
    reason="needs WordNet: packages wordnet-base and wordnet-sense-index",
)
def test_meteor_knows_synonyms():
    figures = Meteor().compute(predictions=["a neoplasm in the lung"], references=["a tumor in the lung"])
    assert figures["meteor"] == pytest.approx(0.996)


def test_a_missing_wordnet_is_named(monkeypatch):
    find_wordnet.cache_clear()
    monkeypatch.setattr("vividmed.metrics.wordnet.SYSTEM_FOLDERS", ())
    monkeypatch.setattr("nltk.data.path", [])
    with pytest.raises(VividMedError, match="wordnet-base"):
        find_wordnet()


def test_cider_of_equal_texts_is_ten_and_of_unrelated_ones_zero():
    texts = ["a large mass in the left lung", "the liver shows one small cyst", "no fracture of any rib"]
    assert Cider().compute(predictions=texts, references=texts)["cider"] == pytest.approx(10)
    unrelated = ["quite another thing", "words without relation", "nothing"]
    assert Cider().compute(predictions=unrelated, references=texts)["cider"] == 0


def test_rare_words_weigh_more_in_cider():
    references = ["scan of the liver", "scan of the spleen", "scan of the kidney"]
    common = Cider().compute(predictions=["scan of the", "x", "x"], references=references)["cider"]
    rare = Cider().compute(predictions=["the liver", "x", "x"], references=references)["cider"]
    assert rare > common


@pytest.mark.parametrize("metric_class", [Bleu, Rouge, Cider])
def test_an_empty_prediction_scores_nothing(metric_class):
    figures = metric_class().compute(predictions=["", "  "], references=["a lung mass", "normal"])
    assert set(figures.values()) == {0.0}
