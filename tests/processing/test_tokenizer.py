from pathlib import Path

import pytest
import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from transformers import AutoTokenizer

import vividmed.processing.tokenizer as module
from vividmed.errors import VividMedError
from vividmed.processing.special_tokens import SPECIAL_TOKENS

TOKENIZER = module.load_tiny_tokenizer()
FOLDER = Path(module.__file__).with_name("tiny_tokenizer")
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


def test_runs_of_spaces_are_split_by_score_as_sentencepiece_does(tmp_path):
    # As Llama's: pieces of spaces have low ids and the lowest scores.
    proto = sentencepiece_model_pb2.ModelProto.FromString((FOLDER / "tokenizer.model").read_bytes())
    for offset, piece in enumerate(("▁▁", "▁▁▁▁", "▁▁▁")):
        proto.pieces.insert(259 + offset, proto.SentencePiece(piece=piece, score=-1e9))
    path = tmp_path / "tokenizer.model"
    path.write_bytes(proto.SerializeToString())
    model, tokenizer = (
        sentencepiece.SentencePieceProcessor(model_file=str(path)),
        module.load_sentencepiece_tokenizer(path),
    )
    for text in ("the  lung", "a   mass    in     it", "x  "):
        assert tokenizer.encode(text, add_special_tokens=False) == model.encode(text)
    assert tokenizer.encode("lung") == [tokenizer.bos_token_id, *model.encode("lung")]
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == list(range(1027, 1035))


def test_a_file_that_is_not_a_sentencepiece_model_is_named(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"nothing")
    for path in (tmp_path / "tokenizer.model", tmp_path / "none.model"):
        with pytest.raises(VividMedError, match=f"{path.name}: not a readable SentencePiece model"):
            module.load_sentencepiece_tokenizer(path)


def test_the_training_script_gives_the_shipped_model(tmp_path):
    from data_scripts.train_tiny_tokenizer import train

    train(tmp_path)
    assert (tmp_path / "tokenizer.model").read_bytes() == (FOLDER / "tokenizer.model").read_bytes()
    assert AutoTokenizer.from_pretrained(tmp_path).get_vocab() == TOKENIZER.get_vocab()
