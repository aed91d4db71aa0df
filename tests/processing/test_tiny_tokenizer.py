from pathlib import Path

import pytest
import sentencepiece
from transformers import AutoTokenizer

import vividmed.processing.tiny as tiny
from vividmed.processing.special_tokens import SPECIAL_TOKENS

TOKENIZER = tiny.load_tiny_tokenizer()
FOLDER = Path(tiny.__file__).with_name("tiny_tokenizer")
SENTENCES = (
    "Is there a pleural effusion in the left lung?",
    "The liver measures 152.3 x 98 x 140 mm and has a volume of 1488.7 ml.",
    "Axial contrast-enhanced CT of the abdomen.",
    "Findings: Ünïcode – “quotes”, 日本語 & emoji 🫁.\n\tTabs and  double spaces ",
    "",
)


def test_ids_of_the_control_tokens_are_those_of_llama():
    assert (TOKENIZER.unk_token_id, TOKENIZER.bos_token_id, TOKENIZER.eos_token_id) == (0, 1, 2)
    assert TOKENIZER.pad_token == "<unk>"
    assert len(TOKENIZER) == 1024 + len(SPECIAL_TOKENS)


@pytest.mark.parametrize("text", SENTENCES)
def test_tokens_are_those_of_the_sentencepiece_model(text):
    model = sentencepiece.SentencePieceProcessor(model_file=str(FOLDER / "tokenizer.model"))
    assert TOKENIZER.encode(text, add_special_tokens=False) == model.encode(text)


@pytest.mark.parametrize("text", SENTENCES)
def test_any_text_returns_from_its_tokens(text):
    ids = TOKENIZER.encode(text, add_special_tokens=False)
    assert TOKENIZER.unk_token_id not in ids
    assert TOKENIZER.decode(ids) == text


@pytest.mark.parametrize("token", SPECIAL_TOKENS)
def test_special_tokens_stay_whole_and_add_no_space(token):
    assert TOKENIZER.tokenize(f"lung{token} lung{token}") == ["▁lung", token, "▁lung", token]
    ids = TOKENIZER.encode(f"a{token} b{token}c", add_special_tokens=False)
    assert TOKENIZER.decode(ids, skip_special_tokens=False) == f"a{token} b{token}c"


def test_radiology_text_is_compact():
    text = "Is the left kidney visible in this image? Yes. The right lung is larger than the left lung."
    assert len(TOKENIZER.tokenize(text)) <= 1.25 * len(text.split())


def test_the_training_script_gives_the_shipped_model(tmp_path):
    from data_scripts.train_tiny_tokenizer import train

    train(tmp_path)
    assert (tmp_path / "tokenizer.model").read_bytes() == (FOLDER / "tokenizer.model").read_bytes()
    assert AutoTokenizer.from_pretrained(tmp_path).get_vocab() == TOKENIZER.get_vocab()
