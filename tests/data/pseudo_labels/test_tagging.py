"""The rule tagger on a gold set of our own sentences, and its behaviour on odd text."""

from collections import Counter
from pathlib import Path

import pytest

from vividmed.data.pseudo_labels.tagging import Tagger

GOLD = Path(__file__).with_name("gold.tsv")


@pytest.fixture(scope="module")
def tagger():
    return Tagger()


def gold():
    for line in GOLD.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            sentence, _, labels = line.partition("\t")
            yield sentence, [tuple(label.rsplit("=", 1)) for label in labels.split(", ") if label]


def findings(tagger, sentence):
    return [
        (mention.target, mention.status)
        for mention in tagger(sentence)
        if tagger.taxonomy[mention.target].category == "anomaly"
    ]


def f1(found, true):
    right = (found & true).total()
    return 2 * right / (found.total() + true.total())


def test_phrases_and_negations_of_the_gold_set_are_found(tagger):
    sentences = list(gold())
    assert len(sentences) >= 200
    found, true, found_absent, true_absent = Counter(), Counter(), Counter(), Counter()
    wrong = []
    for number, (sentence, labels) in enumerate(sentences):
        said = findings(tagger, sentence)
        found.update((number, target) for target, _ in said)
        true.update((number, target) for target, _ in labels)
        found_absent.update((number, target) for target, status in said if status == "absent")
        true_absent.update((number, target) for target, status in labels if status == "absent")
        if Counter(said) != Counter(labels):
            wrong.append(f"{sentence}\n    found {said}\n    true  {labels}")
    print("\n".join(wrong))
    print(f"phrases {f1(found, true):.3f}, negations {f1(found_absent, true_absent):.3f}")
    assert f1(found, true) >= 0.85
    assert f1(found_absent, true_absent) >= 0.95


@pytest.mark.parametrize(
    ("text", "phrase", "target"),
    [
        ("There is a small left renal cyst.", "small left renal cyst", "left kidney cyst"),
        ("Cysts of the right kidney", "Cysts", "cyst"),
        ("enlargement of the left kidney", "left kidney", "left kidney"),
        ("a 5 mm, solid nodule", "5 mm, solid nodule", "lung nodule"),
    ],
)
def test_phrases_have_their_adjectives_and_targets_their_side(tagger, text, phrase, target):
    mention = tagger(text)[0]
    assert (mention.text, mention.target) == (phrase, target)
    assert text[mention.start : mention.end] == mention.text


@pytest.mark.parametrize(
    "text", ["", " \n ", "<p>", "....", "no no no no", "\u0000\u2028", "(" * 1000, "\u0416" * 50, "ascites"]
)
def test_odd_text_has_no_mention(tagger, text):
    assert tagger(text) == []


def test_work_grows_in_proportion_to_the_text(tagger, monkeypatch):
    looked_at = 0
    terms = tagger._targets

    class Counting(dict):
        def __contains__(self, key):
            nonlocal looked_at
            looked_at += 1
            return super().__contains__(key)

    monkeypatch.setattr(tagger, "_targets", Counting(terms))
    counts = []
    for size in (100, 400):
        looked_at = 0
        assert len(tagger("no left effusion and " * size)) == size
        counts.append(looked_at)
    assert counts[1] < 4.5 * counts[0]
