"""Llama tokenizers with VividMed's special tokens: from a SentencePiece model, and the tiny model's own."""

from pathlib import Path

import sentencepiece
from transformers import LlamaTokenizer

from vividmed.errors import VividMedError
from vividmed.processing.special_tokens import add_special_tokens

_TINY = Path(__file__).with_name("tiny_tokenizer")


def load_tiny_tokenizer() -> LlamaTokenizer:
    """Load the tokenizer of the tiny model: 1024 pieces for radiology English, and the special tokens.

    Trained by ``data_scripts/train_tiny_tokenizer.py`` on the project's own text. Any other text is spelt in letters
    and bytes, so that nothing is unknown.
    """
    return LlamaTokenizer.from_pretrained(_TINY)


def load_sentencepiece_tokenizer(model_file: str | Path) -> LlamaTokenizer:
    """Build the tokenizer from a bare ``tokenizer.model``, as Llama and Vicuna checkpoints carry it.

    Merges are tried in the order of the pieces' scores, as SentencePiece does. ``LlamaTokenizer.from_pretrained`` of
    transformers 5 orders them by id instead, and so splits runs of spaces differently (Llama's pieces of spaces
    have low ids and the lowest scores).

    Args:
        model_file: a byte-pair model with ``<unk>``, ``<s>`` and ``</s>``.

    Raises:
        VividMedError: no such file, or not a SentencePiece model.
    """
    try:
        model = sentencepiece.SentencePieceProcessor(model_file=str(model_file))
    except (OSError, RuntimeError) as error:
        raise VividMedError(
            f"{model_file}: not a readable SentencePiece model; give the tokenizer.model of a Llama checkpoint"
        ) from error
    pieces = [model.id_to_piece(index) for index in range(model.get_piece_size())]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = LlamaTokenizer(
        vocab=vocabulary,
        merges=_merges(model, vocabulary),
        unk_token=pieces[model.unk_id()],
        bos_token=pieces[model.bos_id()],
        eos_token=pieces[model.eos_id()],
        pad_token=pieces[model.unk_id()],
        add_bos_token=True,
    )
    add_special_tokens(tokenizer)
    return tokenizer


def _merges(model: sentencepiece.SentencePieceProcessor, vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """List all pairs of pieces that make a piece, best score first."""
    scored = [
        (-model.get_score(index), index, (piece[:cut], piece[cut:]))
        for piece, index in vocabulary.items()
        if not (model.is_control(index) or model.is_unknown(index) or model.is_byte(index))
        for cut in range(1, len(piece))
        if piece[:cut] in vocabulary and piece[cut:] in vocabulary
    ]
    return [pair for _, _, pair in sorted(scored)]
