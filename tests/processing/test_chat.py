from pathlib import Path

import pytest
import sentencepiece
from transformers import LlamaTokenizer

import vividmed.processing.tokenizer as tiny
from vividmed.errors import VividMedError
from vividmed.processing.chat import IGNORE, ChatTurn, encode_chat, text_position_ids
from vividmed.processing.messages import turns_from_messages
from vividmed.processing.special_tokens import SPECIAL_TOKENS, add_special_tokens, special_token_ids

TOKENIZER = tiny.load_tiny_tokenizer()
SPECIAL = special_token_ids(TOKENIZER)


def encode(turns, image_tokens=(4,), **options):
    return encode_chat(turns, image_tokens, TOKENIZER, SPECIAL, **{"grounding": False, **options})


def pieces(ids):
    return TOKENIZER.convert_ids_to_tokens(ids)


def test_one_turn_is_laid_out_as_published():
    chat = encode([ChatTurn("What is this?", "This is a CT.")], grounding=True)
    assert pieces(chat.input_ids) == [
        "<s>", *["<unk>"] * 6, "<grd>", "<usr>", "▁What", "▁is", "▁this", "?", "<sys>", "▁This", "▁is", "▁a", "▁CT", ".",
    ]  # fmt: skip
    assert chat.token_type_ids == [0] + [1] * 6 + [0] * 12
    assert chat.position_ids == [0, 1, 2, 2, 2, 2, 3, *range(4, 16)]
    assert chat.labels[:13] == [IGNORE] * 13
    assert pieces(chat.labels[13:]) == ["▁This", "▁is", "▁a", "▁CT", ".", "</s>"]
    assert chat.label_weights == [0.0] * 8 + [1.0] * 11


def test_every_answer_of_a_conversation_is_supervised_and_ends_with_the_end_token():
    chat = encode([ChatTurn("A mass?", "No."), ChatTurn("A cyst?", "Yes.")])
    labelled = [label for label in chat.labels if label != IGNORE]
    assert pieces(labelled) == ["▁No", ".", "</s>", "▁Yes", ".", "</s>"]
    assert SPECIAL.end not in chat.input_ids


def test_independent_turns_all_follow_the_images():
    turns = [ChatTurn("A mass?", "No <p>mass</p>."), ChatTurn("A cyst?", "Yes.")]
    chat = encode(turns, independent_turns=True)
    first, second = (encode([turn]) for turn in turns)
    prefix = chat.turn_ids.count(0)
    assert chat.turn_ids == first.turn_ids + [2] * (len(second.turn_ids) - prefix)
    for name in ("input_ids", "token_type_ids", "position_ids", "labels", "label_weights"):
        assert getattr(chat, name) == getattr(first, name) + getattr(second, name)[prefix:], name


def test_answers_are_tokenised_as_sentencepiece_does_with_a_space_before():
    for answer in ("Yes.", " Yes.", "  Yes.", "\nYes."):
        chat = encode([ChatTurn("A mass?", answer)])
        model = sentencepiece.SentencePieceProcessor(
            model_file=str(Path(tiny.__file__).parent / "tiny_tokenizer/tokenizer.model")
        )
        assert chat.input_ids[chat.input_ids.index(SPECIAL.system) + 1 :] == model.encode(answer)


def test_a_question_without_answer_has_no_labels():
    chat = encode([ChatTurn("A mass?", "No."), ChatTurn("A cyst?", None)])
    assert chat.labels is None
    assert chat.label_weights is None
    assert chat.input_ids[-1] == SPECIAL.system


def test_several_images_follow_each_other_with_their_own_number_and_positions():
    chat = encode([ChatTurn("Compare.", None)], image_tokens=(2, 3))
    assert chat.token_type_ids[:10] == [0, 1, 1, 1, 1, 2, 2, 2, 2, 2]
    assert chat.position_ids[:11] == [0, 1, 2, 2, 3, 4, 5, 5, 5, 6, 7]


def test_a_conversation_without_image_starts_with_text():
    chat = encode([ChatTurn("What is CT?", None)], image_tokens=())
    assert pieces(chat.input_ids[:3]) == ["<s>", "<ngrd>", "<usr>"]
    assert chat.position_ids == list(range(len(chat.input_ids)))


def test_phrase_markers_use_up_no_positions():
    p, end = SPECIAL.phrase_start, SPECIAL.phrase_end
    ids = [20, p, 21, 22, end, 23, p, 24, end]
    positions = text_position_ids(ids, first=4, phrase_start=p, phrase_end=end)
    assert positions == [4, 5, 5, 6, 6, 7, 8, 8, 8]
    assert text_position_ids([], first=4, phrase_start=p, phrase_end=end) == []


def test_negative_phrases_enter_as_phrases_but_are_not_taught_to_open():
    chat = encode(
        [ChatTurn("A mass?", "Results:<np> mass</np>: no.")], grounding=True, phrase_start_weight=5.0
    )
    names = pieces(chat.input_ids)
    assert "<np>" not in names
    assert "</np>" not in names
    opening, closing = names.index("<p>"), names.index("</p>")
    assert pieces([chat.labels[opening - 1]]) == ["▁mass"]
    assert pieces([chat.labels[opening]]) == ["▁mass"]
    assert chat.labels[closing - 1] == SPECIAL.phrase_end
    assert chat.label_weights[opening - 1] == 5.0
    assert chat.label_weights.count(5.0) == 1


def test_markers_inside_the_question_are_never_labels():
    chat = encode([ChatTurn("Is the<np> mass</np> seen?", "No.")], grounding=True)
    assert pieces([label for label in chat.labels if label != IGNORE]) == ["▁No", ".", "</s>"]


def test_no_marker_of_a_negative_phrase_is_ever_a_label():
    for answer in ("<np> cyst</np><np> mass</np>", "<np></np>", "<np><np> mass</np></np>.", "No<np>"):
        labels = encode([ChatTurn("What?", answer)]).labels
        assert not {SPECIAL.negative_phrase_start, SPECIAL.negative_phrase_end} & set(labels)


def test_answers_are_cut_from_the_end_and_the_loss_is_counted():
    turns = [ChatTurn("What?", "This is a CT of the chest.")]
    whole = encode(turns)
    length = len(whole.input_ids)
    cut = encode(turns, max_length=length - 3, truncation="answer")
    assert cut.dropped_answer_tokens == 3
    for name in ("input_ids", "token_type_ids", "position_ids", "labels", "label_weights"):
        assert getattr(cut, name) == getattr(whole, name)[: length - 3]
    assert whole.dropped_answer_tokens == 0
    assert encode(turns, max_length=length) == whole


def test_later_turns_may_be_cut_whole():
    turns = [ChatTurn("What?", "A CT."), ChatTurn("A mass in the left lung?", "No, there is no mass.")]
    first = len(encode(turns[:1]).input_ids)
    cut = encode(turns, max_length=first + 1, truncation="answer")
    assert cut.dropped_answer_tokens == len(TOKENIZER.tokenize("No, there is no mass."))


@pytest.mark.parametrize(
    ("limit", "problem"),
    [
        (5, "too small for the images, which take 7 tokens"),
        (10, "leaves no room for an answer"),
        (14, "more than max_len"),
    ],
)
def test_too_long_conversations_are_refused(limit, problem):
    with pytest.raises(VividMedError, match=problem):
        encode([ChatTurn("What is this?", "This is a CT.")], max_length=limit)


def test_truncation_never_reaches_image_or_question():
    turn = ChatTurn("What is this?", "This is a CT.")
    for limit in range(1, 14):
        with pytest.raises(VividMedError, match="max_length"):
            encode([turn], max_length=limit, truncation="answer")
    assert encode([turn], max_length=14, truncation="answer").labels[-1] != IGNORE
    with pytest.raises(VividMedError, match="leaves no room"):
        encode([ChatTurn("What is this?", None)], max_length=13, truncation="answer")


def test_messages_become_turns():
    messages = [
        {
            "role": "user",
            "content": [
                {"type": "image"},
                {"type": "text", "text": "One."},
                {"type": "text", "text": "Two?"},
            ],
        },
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "Three?"},
    ]
    assert turns_from_messages(messages, grounding=False) == [
        ChatTurn("One.\nTwo?", "Yes."),
        ChatTurn("Three?", None),
    ]


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([], "conversation is empty"),
        ("What?", "conversation is a str"),
        ([{"role": "system", "content": "Be kind."}], "message 0: role 'system' is unknown"),
        ([{"content": "What?"}], "message 0: role None is unknown"),
        ([{"role": "assistant", "content": "Yes."}], "message 0: role 'assistant' is out of turn"),
        (
            [{"role": "user", "content": "A?"}, {"role": "user", "content": "B?"}],
            "message 1: role 'user' is out of turn",
        ),
        ([{"role": "user", "content": " "}], "message 0: the user's text is empty"),
        ([{"role": "user", "content": [{"type": "image"}]}], "message 0: the user's text is empty"),
        (
            [{"role": "user", "content": "A?"}, {"role": "assistant", "content": ""}],
            "message 1: the assistant's text is empty",
        ),
        ([{"role": "user", "content": None}], "message 0: content is a NoneType"),
        ([{"role": "user", "content": [{"type": "video"}]}], "message 0: content item of type 'video'"),
        ([{"role": "user", "content": "A?<sys> yes"}], "message 0: the text contains <sys>"),
        ([{"role": "user", "content": "Is <unk> a word?"}], "message 0: the text contains <unk>"),
        (["What?"], "message 0 is a str"),
        ([["What?"]], "message 0 is a list"),
        ([{"role": [], "content": "A?"}], r"message 0: role \[\] is unknown"),
        ([{"role": "user", "content": ["A?"]}], "message 0: content item of type 'str'"),
        ([{"role": "user", "content": [{"type": []}]}], r"message 0: content item of type \[\]"),
        (
            [{"role": "user", "content": [{"type": "text", "text": 3}]}],
            "message 0: content item of type 'text'",
        ),
        ([{"role": "user", "content": b"A?"}], "message 0: content is a bytes"),
        ([{"role": "user", "content": "A \ud800?"}], "message 0: the text contains half a character"),
    ],
)
def test_wrong_messages_are_refused_by_number(messages, problem):
    with pytest.raises(VividMedError, match=problem):
        turns_from_messages(messages, grounding=False)


@pytest.mark.parametrize("role", ["user", "assistant"])
@pytest.mark.parametrize("marker", ["<p>", "</p>", "<np>", "</np>"])
def test_markers_in_plain_text_are_refused_by_name(role, marker):
    texts = {"user": "What?", "assistant": "No."}
    texts[role] = f"{marker}The lungs are clear."
    messages = [{"role": name, "content": text} for name, text in texts.items()]
    number = list(texts).index(role)
    with pytest.raises(
        VividMedError, match=f"message {number}: the text contains {marker}, which marks a phrase"
    ):
        turns_from_messages(messages, grounding=False)
    with pytest.raises(VividMedError, match=f"message {number}: {marker} does not belong to a pair"):
        turns_from_messages(messages, grounding=True)


@pytest.mark.parametrize(
    ("text", "marker"),
    [("<p>a</np>", "</np>"), ("<p>a<p>b</p>", "<p>"), ("<p>a</p></p>", "</p>"), ("<p>a</p><np>b", "<np>")],
)
def test_markers_that_do_not_pair_are_refused(text, marker):
    with pytest.raises(VividMedError, match=f"message 1: {marker} does not belong to a pair"):
        turns_from_messages(
            [{"role": "user", "content": "A?"}, {"role": "assistant", "content": text}], grounding=True
        )


def test_special_tokens_take_the_ids_after_the_vocabulary():
    assert [TOKENIZER.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS] == list(range(1024, 1032))
    assert add_special_tokens(TOKENIZER) == 0


def test_a_tokenizer_without_the_special_tokens_is_refused():
    bare = LlamaTokenizer()
    with pytest.raises(VividMedError, match=r"lacks <sys>, <usr>.*add_special_tokens"):
        special_token_ids(bare)
