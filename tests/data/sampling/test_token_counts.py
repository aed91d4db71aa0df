"""Token counts equal the numbers of ids, whatever the tokenizer and the text."""

import random

import pyarrow as pa
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from vividmed.data.sampling.token_counts import TokenCounter
from vividmed.processing.tokenizer import load_tiny_tokenizer

WORDS = [
    "the",
    "lungs",
    "clear.",
    "5",
    "mm",
    "<p>nodule</p>",
    "\u00fc\u80ba",
    "a\nb",
    "a\0b",
    "",
    " ",
    "\u2581",
    "\U0001f600",
    "</s>",
]


def trained(pre_tokenizer) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<unk>", "<p>", "</p>"], show_progress=False
    )
    tokenizer.train_from_iterator(["the lungs are clear the lungs are clear of the nodule"] * 9, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


TOKENIZERS = {
    "packaged": load_tiny_tokenizer,
    "tokens over spaces": lambda: trained(pre_tokenizers.Metaspace(split=False)),
    "split at spaces": lambda: trained(pre_tokenizers.Metaspace(split=True)),
    "bytes": lambda: trained(pre_tokenizers.ByteLevel()),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_counts_are_the_numbers_of_ids(name):
    tokenizer = TOKENIZERS[name]()
    generator = random.Random(0)
    texts = [" ".join(generator.choices(WORDS, k=generator.randint(0, 20))) for _ in range(300)]
    count = TokenCounter(tokenizer)
    expected = [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    assert count(pa.array(texts)).tolist() == expected
    assert count(pa.array(texts[::-1])).tolist() == expected[::-1]
    assert count(pa.array([], pa.string())).tolist() == []


def test_padding_and_truncation_of_earlier_calls_do_not_count():
    tokenizer = load_tiny_tokenizer()
    texts = ["the lungs are clear", "the"]
    tokenizer(texts, padding="max_length", max_length=3, truncation=True)
    expected = [len(tokenizer.tokenize(text)) for text in texts]
    tokenizer(texts, padding="max_length", max_length=3, truncation=True)
    assert TokenCounter(tokenizer)(pa.array(texts)).tolist() == expected
