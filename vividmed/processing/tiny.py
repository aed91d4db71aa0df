"""The tokenizer of the tiny model, which ships with the package."""

from pathlib import Path

from transformers import LlamaTokenizer

_FOLDER = Path(__file__).with_name("tiny_tokenizer")


def load_tiny_tokenizer() -> LlamaTokenizer:
    """A Llama tokenizer of 1024 pieces for radiology English, with VividMed's special tokens.

    Trained by ``data_scripts/train_tiny_tokenizer.py`` on text of our own. Any other text is spelt in letters and
    bytes, so that nothing is unknown.
    """
    return LlamaTokenizer.from_pretrained(_FOLDER)
