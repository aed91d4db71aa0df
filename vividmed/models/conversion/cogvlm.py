"""Loading a 2D CogVLM checkpoint into VividMed.

The language model's tensors carry over by name. The patch convolution and the position embeddings are resampled and
spread over depth, so that a volume that is constant along z gives what its slice gave. The embeddings get rows for
the special tokens, and every tensor is accounted for in a report.
"""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vividmed.errors import VividMedError
from vividmed.models.configuration_vividmed import VividMedConfig
from vividmed.models.conversion.reading import CheckpointReader
from vividmed.models.conversion.report import LoadReport
from vividmed.models.conversion.rules import ConversionPlan, Source, all_of, fitted_rows
from vividmed.models.depth import resample
from vividmed.models.modeling_vividmed import VividMedForCausalLM

NUM_SPECIAL_TOKENS = 8
VISION = "model.vision."
PATCH_EMBEDDING = VISION + "patch_embedding."
TOKEN_ROWS = ("model.embed_tokens.weight", "lm_head.weight")


def inflate_patch_kernel(kernel: torch.Tensor, patch_size: Sequence[int]) -> torch.Tensor:
    """(out, in, y, x) to (out, in, z, y, x): resample in the plane, then spread evenly over depth."""
    depth, *plane = patch_size
    kernel = resample(kernel, plane, conserve_sum=True)
    return (kernel / depth)[:, :, None].repeat(1, 1, depth, 1, 1)


def inflate_positions(positions: torch.Tensor, grid: Sequence[int]) -> torch.Tensor:
    """(h * w, C) of a square grid, or (h, w, C), to (1, C, z, y, x): resample in the plane, then repeat over depth."""
    if positions.ndim == 2:
        side = round(len(positions) ** 0.5)
        if side * side != len(positions):
            raise VividMedError(
                f"{len(positions)} position embeddings do not form a square grid: is this a CogVLM checkpoint?"
            )
        positions = positions.unflatten(0, (side, side))
    depth, *plane = grid
    flat = resample(positions.permute(2, 0, 1)[None], plane)
    return flat[:, :, None].repeat(1, 1, depth, 1, 1)


def plan_cogvlm(plan: ConversionPlan, reader: CheckpointReader, config: VividMedConfig) -> None:
    """Plan the language model and the vision tower from a CogVLM checkpoint.

    Args:
        plan: gets the rules.
        reader: a checkpoint under CogVLM's names, 2D or already 3D.
        config: configuration of the model to make.
    """
    for source in all_of(reader):
        name = source.name
        if name.endswith("rotary_emb.inv_freq"):
            plan.ignored.append(source)
        elif name in TOKEN_ROWS:
            plan.add(name, [source], fitted_rows(config.text_config.vocab_size))
        elif name.startswith(VISION):
            plan_vision_tensor(plan, source, name, config)
        else:
            plan.copy(source, name)


def plan_vision_tensor(plan: ConversionPlan, source: Source, name: str, config: VividMedConfig) -> None:
    """Plan what becomes of one tensor of a vision tower.

    Args:
        plan: gets the rules.
        source: the tensor, of a tower for 2D images or one that is already 3D.
        name: its name in CogVLM, ``model.vision.…``.
        config: configuration of the model to make.
    """
    grid = config.vision_config.position_grid
    if name == PATCH_EMBEDDING + "proj.weight":
        plan.add(name, [source], partial(fit_patch_kernel, patch_size=config.vision_config.patch_size))
    elif name == PATCH_EMBEDDING + "cls_embedding":
        plan.copy(source, name + ".weight")
    elif name == PATCH_EMBEDDING + "position_embedding.weight" and source.shape.ndim == 2:
        plan.add(PATCH_EMBEDDING + "cls_pos_embed.weight", [source], _first_row)
        plan.add(name, [source], partial(_inflate_after_first_row, grid=grid))
    elif name == PATCH_EMBEDDING + "position_embedding.weight":
        plan.add(name, [source], partial(resample, shape=grid))
    else:
        plan.copy(source, name)


def load_cogvlm(
    folder: str | Path,
    *,
    patch_size: Sequence[int] = (16, 16, 16),
    position_grid: Sequence[int] = (8, 32, 32),
    dtype: torch.dtype = torch.bfloat16,
) -> tuple[VividMedForCausalLM, LoadReport]:
    """Build a VividMed model from a CogVLM checkpoint, in memory.

    ``vividmed build`` writes the same model to disk without taking its memory.

    Args:
        folder: with CogVLM's config.json and its weights.
        patch_size: (z, y, x) of the new patch convolution.
        position_grid: (z, y, x) of the new grid of position embeddings.
        dtype: precision of the parameters.

    Returns:
        The model, without segmenters, with eight new token rows, and the report.

    Raises:
        VividMedError: the folder has no CogVLM checkpoint, or a tensor has no counterpart.
    """
    folder = Path(folder)
    config = config_from_cogvlm(folder / "config.json", patch_size=patch_size, position_grid=position_grid)
    with torch.device("meta"):
        model = VividMedForCausalLM(config)
    reader = CheckpointReader(folder)
    plan = ConversionPlan(model)
    plan_cogvlm(plan, reader, config)
    report = plan.report(all_of(reader))
    report.raise_if_incomplete(str(folder), "is it a CogVLM checkpoint of this size?")
    plan.check_shapes()
    model.load_state_dict({name: plan.make(name).to(dtype).clone() for name in plan.names()}, assign=True)
    return model, report


def config_from_cogvlm(
    path: Path,
    *,
    patch_size: Sequence[int],
    position_grid: Sequence[int],
    vocab_size: int | None = None,
) -> VividMedConfig:
    """Read CogVLM's config.json.

    Args:
        path: the file.
        patch_size: (z, y, x) of the new patch convolution.
        position_grid: (z, y, x) of the new grid of position embeddings.
        vocab_size: number of tokens, the eight new ones included; by default those of CogVLM and these.

    Raises:
        VividMedError: the file is missing or describes another architecture.
    """
    try:
        source: dict[str, Any] = json.loads(path.read_text())
        vision = source["vision_config"]
        if vocab_size is None:
            vocab_size = source["vocab_size"] + NUM_SPECIAL_TOKENS
        return VividMedConfig(
            vision_config={
                "hidden_size": vision["hidden_size"],
                "intermediate_size": vision["intermediate_size"],
                "num_hidden_layers": vision["num_hidden_layers"],
                "num_attention_heads": vision["num_heads"],
                "num_channels": vision["in_channels"],
                "layer_norm_eps": vision["layer_norm_eps"],
                "patch_size": tuple(patch_size),
                "position_grid": tuple(position_grid),
            },
            text_config={
                "vocab_size": vocab_size,
                **{key: source[key] for key in _TEXT_KEYS},
            },
            phrase_start_token_id=vocab_size - 4,
            phrase_end_token_id=vocab_size - 3,
        )
    except VividMedError:
        raise
    except FileNotFoundError:
        raise VividMedError(f"{path} does not exist: give the folder of a CogVLM checkpoint") from None
    except (KeyError, TypeError, ValueError) as error:
        raise VividMedError(
            f"{path} is not a configuration of CogVLM ({error}): give the folder of a CogVLM checkpoint"
        ) from None


_TEXT_KEYS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "hidden_act",
    "max_position_embeddings",
    "rms_norm_eps",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)


def fit_patch_kernel(kernel: torch.Tensor, patch_size: Sequence[int]) -> torch.Tensor:
    """A patch kernel of any size, (out, in, y, x) or (out, in, z, y, x), as one of ``patch_size`` (z, y, x)."""
    if kernel.ndim == 4:
        return inflate_patch_kernel(kernel, patch_size)
    return resample(kernel, patch_size, conserve_sum=True)


def _first_row(rows: torch.Tensor) -> torch.Tensor:
    return rows[:1]


def _inflate_after_first_row(rows: torch.Tensor, *, grid: Sequence[int]) -> torch.Tensor:
    return inflate_positions(rows[1:], grid)
