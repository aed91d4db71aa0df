"""Tiny random weights of the networks of metrics, in the form in which they are published."""

import json

import pytest
import torch
from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

WORDS = [
    "no",
    "acute",
    "mass",
    "left",
    "right",
    "lung",
    "effusion",
    "heart",
    "is",
    "normal",
    "there",
    "a",
    "small",
    "the",
    "in",
    "of",
    "pneumothorax",
]
SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "max_position_embeddings": 520}
TEXTS = ["no acute mass in the left lung", "there is a small right effusion", "heart is normal"]


def vocabulary(folder):
    folder.mkdir(parents=True, exist_ok=True)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n")
    return len(tokens)


@pytest.fixture(scope="session")
def chexbert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chexbert")
    torch.manual_seed(0)
    config = BertConfig(vocab_size=vocabulary(folder), num_hidden_layers=2, **SMALL)
    config.save_pretrained(folder)
    state = {f"module.bert.{name}": value for name, value in BertModel(config).state_dict().items()}
    state["module.bert.embeddings.position_ids"] = torch.arange(520)[None]
    for number, size in enumerate([4] * 13 + [2]):
        state[f"module.linear_heads.{number}.weight"] = torch.randn(size, 16)
        state[f"module.linear_heads.{number}.bias"] = torch.randn(size)
    torch.save({"model_state_dict": state, "epoch": 3}, folder / "chexbert.pth")
    return folder


@pytest.fixture(scope="session")
def radbert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("radbert")
    size = vocabulary(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    torch.manual_seed(1)
    config = RobertaConfig(vocab_size=size, num_hidden_layers=1, pad_token_id=0, **SMALL)
    config.save_pretrained(folder)
    state = {f"model.{name}": value for name, value in RobertaModel(config).state_dict().items()}
    state |= {"classifier.weight": 3 * torch.randn(18, 16), "classifier.bias": torch.randn(18)}
    torch.save(state, folder / "RadBertClassifier.pth")
    return folder


@pytest.fixture(scope="session")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder") / "six_layers"
    size = vocabulary(folder)
    torch.manual_seed(2)
    config = BertConfig(vocab_size=size, num_hidden_layers=6, **SMALL)
    BertModel(config).save_pretrained(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    return folder
