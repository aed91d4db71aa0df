import random

import pytest

from vividmed.errors import VividMedError
from vividmed.processing.grounded_text import (
    ParsedText,
    PhraseSpan,
    format_grounded_text,
    parse_grounded_ids,
    parse_grounded_text,
)
from vividmed.processing.special_tokens import SPECIAL_TOKENS
from vividmed.processing.tokenizer import load_tiny_tokenizer

TOKENIZER = load_tiny_tokenizer()


def test_phrases_become_spans_of_the_clean_text():
    parsed = parse_grounded_text("A small<p> nodule</p> in the<p> left lung</p>.")
    assert parsed.text == "A small nodule in the left lung."
    assert parsed.phrases == (PhraseSpan("nodule", 8, 14, 0), PhraseSpan("left lung", 22, 31, 1))
    for phrase in parsed.phrases:
        assert parsed.text[phrase.start : phrase.end] == phrase.text


def test_the_whole_phrase_is_kept_to_its_last_token():
    for phrase in ("left lung", "rib", "T12"):
        ids = TOKENIZER.encode(f"The<p> {phrase}</p> is seen.", add_special_tokens=False)
        assert [p.text for p in parse_grounded_ids(ids, TOKENIZER).phrases] == [phrase]


@pytest.mark.parametrize(
    ("marked", "text", "phrases"),
    [
        ("no markers", "no markers", []),
        ("", "", []),
        ("<p> open only", "open only", []),
        ("close only</p> here", "close only here", []),
        ("a<p> b<p> c</p> d</p> e", "a b c d e", [("c", 0)]),
        ("<p></p><p> </p> x<p> y</p>", "x y", [("y", 2)]),
        ("</p></p><p> z</p>", "z", [("z", 2)]),
        ("<p> a</p><p>b</p>", "ab", [("a", 0), ("b", 1)]),
        ("<usr> q<sys> <np> n</np> and<p> p</p>", "q  n and p", [("p", 0)]),
    ],
)
def test_unbalanced_markers_never_raise(marked, text, phrases):
    parsed = parse_grounded_text(marked)
    assert parsed.text == text
    assert [(phrase.text, phrase.prompt_index) for phrase in parsed.phrases] == phrases


def test_any_token_sequence_is_parsed():
    draw = random.Random(0)
    for _ in range(200):
        ids = [draw.choice([draw.randrange(len(TOKENIZER)), 1028, 1029]) for _ in range(30)]
        parsed = parse_grounded_ids(ids, TOKENIZER)
        for phrase in parsed.phrases:
            assert parsed.text[phrase.start : phrase.end] == phrase.text
            assert 0 <= phrase.prompt_index < ids.count(1029)
        assert not any(token in parsed.text for token in SPECIAL_TOKENS)


def test_begin_end_and_padding_tokens_are_dropped():
    ids = [0, 0, 1, *TOKENIZER.encode("a<p> mass</p>.", add_special_tokens=False), 2, 0]
    assert parse_grounded_ids(ids, TOKENIZER) == ParsedText("a mass.", (PhraseSpan("mass", 2, 6, 0),))


@pytest.mark.parametrize(
    ("text", "spans", "marked"),
    [
        (
            "A small nodule in the left lung.",
            [(22, 31), (8, 14)],
            "A small<p> nodule</p> in the<p> left lung</p>.",
        ),
        ("Nodule seen.", [(0, 6)], "<p> Nodule</p> seen."),
        ("First.\nLung is clear.", [(7, 11)], "First.\n<p>Lung</p> is clear."),
        ("nothing", [], "nothing"),
    ],
)
def test_spans_become_markers_and_return(text, spans, marked):
    assert format_grounded_text(text, spans) == marked
    parsed = parse_grounded_text(marked)
    assert parsed.text == text
    assert [(phrase.start, phrase.end) for phrase in parsed.phrases] == sorted(spans)


def test_marking_a_phrase_leaves_its_tokens_as_they_are():
    plain = TOKENIZER.tokenize("A mass in the left lung.")
    marked = TOKENIZER.tokenize(format_grounded_text("A mass in the left lung.", [(2, 6), (14, 23)]))
    assert [token for token in marked if token not in SPECIAL_TOKENS] == plain


@pytest.mark.parametrize("spans", [[(0, 3), (2, 5)], [(3, 3)], [(0, 99)], [(-1, 2)], [(1, 4)]])
def test_wrong_spans_are_refused(spans):
    with pytest.raises(VividMedError, match="phrase span"):
        format_grounded_text("a mass", spans)


def test_text_that_already_contains_markers_is_refused():
    with pytest.raises(VividMedError, match="contains the marker <p>"):
        format_grounded_text("a<p> mass</p>", [(0, 1)])
