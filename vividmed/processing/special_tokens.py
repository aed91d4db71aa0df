"""The eight tokens that VividMed adds to its tokenizer."""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from vividmed.errors import VividMedError

SYSTEM = "<sys>"
USER = "<usr>"
GROUNDING = "<grd>"
NO_GROUNDING = "<ngrd>"
PHRASE_START = "<p>"
PHRASE_END = "</p>"
NEGATIVE_PHRASE_START = "<np>"
NEGATIVE_PHRASE_END = "</np>"

SPECIAL_TOKENS = (
    SYSTEM,
    USER,
    GROUNDING,
    NO_GROUNDING,
    PHRASE_START,
    PHRASE_END,
    NEGATIVE_PHRASE_START,
    NEGATIVE_PHRASE_END,
)
"""The tokens in their published order, which fixes their ids: the first ids after the base vocabulary."""


@dataclass(frozen=True, kw_only=True)
class SpecialTokenIds:
    """Ids of the tokens that structure a conversation.

    ``system`` ends the user's prompt and hands over to the model. ``negative_phrase_start`` and
    ``negative_phrase_end`` exist only in training text and never enter the model: they mark a phrase that is not in
    the image, which the model is not taught to open.
    """

    system: int
    user: int
    grounding: int
    no_grounding: int
    phrase_start: int
    phrase_end: int
    negative_phrase_start: int
    negative_phrase_end: int
    begin: int
    end: int


def add_special_tokens(tokenizer: PreTrainedTokenizerBase) -> int:
    """Add those of the eight tokens that are missing, in the published order.

    Returns:
        Number of tokens added, by which the model's embeddings must grow.
    """
    return tokenizer.add_tokens(list(SPECIAL_TOKENS), special_tokens=True)


def special_token_ids(tokenizer: PreTrainedTokenizerBase) -> SpecialTokenIds:
    """Look up the ids of the special tokens.

    Raises:
        VividMedError: the tokenizer lacks a token.
    """
    vocabulary = tokenizer.get_vocab()
    missing = [token for token in SPECIAL_TOKENS if token not in vocabulary]
    if missing:
        raise VividMedError(
            f"tokenizer {tokenizer.name_or_path!r} lacks {', '.join(missing)}; call "
            "vividmed.processing.add_special_tokens(tokenizer) and resize the model's embeddings"
        )
    if tokenizer.bos_token_id is None or tokenizer.eos_token_id is None:
        raise VividMedError(
            f"tokenizer {tokenizer.name_or_path!r} has no begin or end token; set its bos_token and eos_token"
        )
    system, user, grounding, no_grounding, p, p_end, np, np_end = (
        vocabulary[token] for token in SPECIAL_TOKENS
    )
    return SpecialTokenIds(
        system=system,
        user=user,
        grounding=grounding,
        no_grounding=no_grounding,
        phrase_start=p,
        phrase_end=p_end,
        negative_phrase_start=np,
        negative_phrase_end=np_end,
        begin=tokenizer.bos_token_id,
        end=tokenizer.eos_token_id,
    )
