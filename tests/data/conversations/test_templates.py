import re

import numpy as np
import pytest

from vividmed.data.conversations.grammar import enumerate_phrases, noun_phrase
from vividmed.data.conversations.templates import render_template, wordings


@pytest.mark.parametrize(
    ("term", "anomaly", "text", "plural"),
    [
        ("liver", False, "the liver", False),
        ("pancreas", False, "the pancreas", False),
        ("left kidney", False, "the left kidney", False),
        ("pulmonary arteries", False, "the pulmonary arteries", True),
        ("thoracic vertebrae", False, "the thoracic vertebrae", True),
        ("both lungs", False, "both lungs", True),
        ("C1", False, "C1", False),
        ("left rib 3", False, "left rib 3", False),
        ("liver segment IV", False, "liver segment IV", False),
        ("intervertebral disc between L4 and L5", False, "the intervertebral disc between L4 and L5", False),
        ("left rib", False, "a left rib", False),
        ("cerebrum and cerebellum", False, "the cerebrum and cerebellum", True),
        ("lung nodule", True, "a lung nodule", False),
        ("enlarged heart", True, "an enlarged heart", False),
        ("atelectasis", True, "atelectasis", False),
        ("air in the pleural space", True, "air in the pleural space", False),
        ("micronodules", True, "micronodules", True),
    ],
)
def test_terms_get_their_article_and_number(term, anomaly, text, plural):
    phrase = noun_phrase(term, anomaly=anomaly)
    assert (phrase.text, phrase.plural) == (text, plural)


def test_several_names_take_a_plural_verb():
    one, two = (noun_phrase(term, anomaly=False) for term in ("liver", "spleen"))
    assert enumerate_phrases([one]).plural is False
    assert enumerate_phrases([one, two]).text == "the liver and the spleen"
    assert enumerate_phrases([one, two, one]).text == "the liver, the spleen and the liver"
    assert enumerate_phrases([one, two]).plural


def test_every_wording_can_be_filled_in_and_agrees_with_its_subject():
    single = noun_phrase("liver", anomaly=False)
    several = enumerate_phrases([single, noun_phrase("spleen", anomaly=False)])
    topics = {
        "presence": 50,
        "presence_instruction": 4,
        "uncertain_instruction": 3,
        "anomalies": 30,
        "anomalies_form": 3,
        "modality": 6,
        "plane": 10,
        "caption": 6,
        "report": 26,
        "findings": 12,
        "plain_report": 10,
    }
    for topic, least in topics.items():
        assert len(set(wordings(topic))) == len(wordings(topic)) >= least
        for names in (single, several):
            filled = {
                render_template(topic, np.random.default_rng(i), modality="CT", names=names)
                for i in range(300)
            }
            for text in filled:
                assert text[0].isupper()
                assert text[-1] in ".?"
                assert not set(text) & set("{}<>")
                wrong = r"liver (are|have|do)\b" if names is single else r"spleen (is|has|does)\b"
                assert not re.search(wrong, text)
                wrong = r"^(Are|Do|Have) the liver\b" if names is single else r"^(Is|Does|Has) the liver\b"
                assert not re.search(wrong, text)


def test_image_is_called_by_words_that_fit_the_modality():
    def words(modality):
        return " ".join(
            render_template("caption", np.random.default_rng(i), modality=modality) for i in range(200)
        )

    assert "radiograph" in words("X-ray")
    assert "scan" not in words("X-ray")
    assert "radiograph" not in words("T1 MRI")
    assert not re.search("scan|radiograph|X-ray", words(None))
