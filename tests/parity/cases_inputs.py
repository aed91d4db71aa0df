"""What enters the model: conversations as tensors, and the tables of sizes, boxes and intensities."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from tests.parity.harness import Check, Golden, case, close, equal
from vividmed.errors import VividMedError
from vividmed.processing.boxes import corners_to_fractions, fractions_to_corners
from vividmed.processing.chat import IGNORE, ChatTurn, EncodedChat, encode_chat
from vividmed.processing.geometry import depth_tokens, largest_resize
from vividmed.processing.image_processing_vividmed import VividMedImageProcessor
from vividmed.processing.special_tokens import special_token_ids
from vividmed.processing.tokenizer import load_sentencepiece_tokenizer


@case("07_vlm_inputs")
def conversations(golden: Golden) -> Iterator[Check]:
    tokenizer = load_sentencepiece_tokenizer(golden.folder / "tokenizer" / "tokenizer.model")
    special = special_token_ids(tokenizer)
    names = ("system", "user", "grounding", "no_grounding")
    names += ("phrase_start", "phrase_end", "negative_phrase_start", "negative_phrase_end")
    yield equal(
        "special ids", [getattr(special, name) for name in names], list(golden.special_token_ids.values())
    )

    published = golden.tensors("07_vlm_inputs")
    for index, item in enumerate(golden.case("07_vlm_inputs")["conversations"]):
        inference = item["inference"]
        turns = [ChatTurn(query, answer) for query, answer in item["conv"]]
        if inference:
            turns[-1] = ChatTurn(turns[-1].query, None)
        encode = partial(
            encode_chat,
            turns,
            [item["n"]],
            tokenizer,
            special,
            grounding=item["grounding"],
            phrase_start_weight=1.0 if item["bop_weight"] is None else item["bop_weight"],
            truncation="answer",
        )
        ours = _encode_as_published(encode, item["max_seq_len"])
        for name in ("input_ids", "token_type_ids", "position_ids"):
            yield equal(f"{index}.{name}", torch.tensor(getattr(ours, name)), published[f"{index}.{name}"])
        yield equal(
            f"{index}.attention_mask",
            torch.ones(len(ours.input_ids)).long(),
            published[f"{index}.attention_mask"],
        )
        if inference:
            yield equal(f"{index} has no labels", (ours.labels, ours.label_weights), (None, None))
            continue
        labels, theirs = torch.tensor(ours.labels), published[f"{index}.labels"]
        # Q10, fixed: the published code labels </p> inside the user's prompt, where </np> follows. Ours ignores it.
        quirk = _in_prompt(published[f"{index}.input_ids"], special.user, special.system)
        quirk &= (theirs == special.phrase_end) & (labels == IGNORE)
        yield equal(f"{index}.labels", labels[~quirk], theirs[~quirk])
        yield equal(f"{index}.weight", torch.tensor(ours.label_weights), published[f"{index}.weight"])


def _encode_as_published(encode: Callable[..., EncodedChat], max_length: int | None) -> EncodedChat:
    """Encode with a length limit, cutting into the prompt where ours refuses to."""
    try:
        return encode(max_length=max_length)
    except VividMedError:
        whole = encode(max_length=None)
        fields = ("input_ids", "token_type_ids", "position_ids", "labels", "label_weights")
        values = {name: getattr(whole, name) for name in fields}
        cut = {name: value[:max_length] for name, value in values.items() if value is not None}
        return replace(whole, **cut)


def _in_prompt(ids: torch.Tensor, user: int, system: int) -> torch.Tensor:
    """Places from <usr> to the token before <sys>."""
    return ((ids == user).cumsum(0) - (ids == system).cumsum(0)) > 0


@case("08_tables")
def tables(golden: Golden) -> Iterator[Check]:
    table = golden.json("08_tables")
    for row in table["get_max_resize"]:
        stride = (row["stride"], row["stride"])
        yield equal(
            f"resize {row}",
            largest_resize(tuple(row["size"]), stride, row["max_tokens"]),
            tuple(row["resize"]),
        )
    for row in table["get_patch_size_z"]["rows"]:
        yield equal(f"depth {row}", depth_tokens(row["size_z"], **_depth_settings(row)), tuple(row["result"]))
    for row in table["get_patch_size_z_random"]:
        generator = np.random.RandomState(row["numpy_RandomState_seed"])
        draws = [
            list(
                depth_tokens(
                    row["size_z"],
                    **_depth_settings(row),
                    generator=generator,
                    jitter_std=row["log2_patch_size_z_std"],
                )
            )
            for _ in row["draws"]
        ]
        yield equal(f"random depth {row['numpy_RandomState_seed']}", draws, row["draws"])
    for row in table["norm_boxes"]["rows"]:
        boxes, normed = torch.tensor(row["boxes"]), torch.tensor(row["normed"], dtype=torch.float64)
        yield close("boxes to fractions", corners_to_fractions(boxes, tuple(row["size"])), normed)
        yield close("fractions to boxes", fractions_to_corners(normed, tuple(row["size"])), boxes)
    image = torch.tensor(table["intensity_norm"]["image"])
    yield close(
        "intensity",
        VividMedImageProcessor().normalize(image),
        torch.tensor(table["intensity_norm"]["result"]),
    )


def _depth_settings(row: dict) -> dict:
    return {
        "base_patch": row["base_patch_size_z"],
        "base_pool": row["base_pool_size_z"],
        "max_tokens": row["max_tokens_z"],
    }
