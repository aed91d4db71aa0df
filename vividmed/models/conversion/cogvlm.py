"""Loading a 2D CogVLM checkpoint into VividMed.

The language model's tensors carry over by name. The patch convolution and the position embeddings are resampled and
spread over depth, so that a volume that is constant along z gives what its slice gave. The embeddings get rows for
the special tokens, and every tensor is accounted for in a report.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from vividmed.errors import VividMedError
from vividmed.models.configuration_vividmed import VividMedConfig
from vividmed.models.conversion.report import LoadReport
from vividmed.models.depth import resample
from vividmed.models.modeling_vividmed import VividMedForCausalLM

NUM_SPECIAL_TOKENS = 8
PATCH_EMBEDDING = "model.vision.patch_embedding."
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


def add_token_rows(rows: torch.Tensor, count: int) -> torch.Tensor:
    """Append rows for new tokens at the mean of the existing ones (random rows would be far too long)."""
    mean = rows.float().mean(0, keepdim=True).to(rows.dtype)
    return torch.cat([rows, mean.expand(count, -1)])


def convert_cogvlm_state_dict(
    state_dict: dict[str, torch.Tensor], config: VividMedConfig, report: LoadReport | None = None
) -> dict[str, torch.Tensor]:
    """Rename, resample and extend a CogVLM state dict to that of :class:`VividMedForCausalLM`.

    Args:
        state_dict: tensors under CogVLM's names, from the 2D checkpoint or from one that is already 3D.
        config: configuration of the model to fill.
        report: records what was copied, converted and dropped.
    """
    report = report or LoadReport()
    vision = config.vision_config
    converted: dict[str, torch.Tensor] = {}
    for name, tensor in state_dict.items():
        if name.endswith("rotary_emb.inv_freq"):
            report.dropped.append(name)
            continue
        new: dict[str, torch.Tensor] = {name: tensor}
        if name in TOKEN_ROWS:
            new = {name: _fit_token_rows(name, tensor, config.text_config.vocab_size)}
        elif name == PATCH_EMBEDDING + "proj.weight" and tensor.ndim == 4:
            new = {name: inflate_patch_kernel(tensor, vision.patch_size)}
        elif name == PATCH_EMBEDDING + "cls_embedding":
            new = {name + ".weight": tensor}
        elif name == PATCH_EMBEDDING + "position_embedding.weight":
            if tensor.ndim == 2:
                new = {
                    PATCH_EMBEDDING + "cls_pos_embed.weight": tensor[:1],
                    name: inflate_positions(tensor[1:], vision.position_grid),
                }
            else:
                new = {name: resample(tensor, vision.position_grid)}
        report.copied += [key for key, value in new.items() if value is tensor and key == name]
        report.converted += [key for key, value in new.items() if value is not tensor or key != name]
        converted.update(new)
    return converted


def load_cogvlm(
    folder: str | Path,
    *,
    patch_size: Sequence[int] = (16, 16, 16),
    position_grid: Sequence[int] = (8, 32, 32),
    dtype: torch.dtype = torch.bfloat16,
) -> tuple[VividMedForCausalLM, LoadReport]:
    """Build a VividMed model from a CogVLM checkpoint in safetensors.

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
    report = LoadReport()
    state_dict = convert_cogvlm_state_dict(dict(_read_safetensors(folder)), config, report)
    with torch.device("meta"):
        model = VividMedForCausalLM(config)
    expected = model.state_dict()
    report.missing = sorted(expected.keys() - state_dict.keys())
    report.unexpected = sorted(state_dict.keys() - expected.keys())
    report.raise_if_incomplete(str(folder), "is it a CogVLM checkpoint of this size?")
    for name, tensor in state_dict.items():
        if tensor.shape != expected[name].shape:
            raise VividMedError(
                f"{folder}: {name} has shape {tuple(tensor.shape)} but config.json asks for "
                f"{tuple(expected[name].shape)}; give a folder whose config.json belongs to its weights"
            )
    model.load_state_dict({name: tensor.to(dtype) for name, tensor in state_dict.items()}, assign=True)
    return model, report


def config_from_cogvlm(
    path: Path, *, patch_size: Sequence[int], position_grid: Sequence[int]
) -> VividMedConfig:
    """Read CogVLM's config.json.

    Raises:
        VividMedError: the file is missing or describes another architecture.
    """
    try:
        source: dict[str, Any] = json.loads(path.read_text())
        vision = source["vision_config"]
        vocab_size = source["vocab_size"]
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
                "vocab_size": vocab_size + NUM_SPECIAL_TOKENS,
                **{key: source[key] for key in _TEXT_KEYS},
            },
            phrase_start_token_id=vocab_size + 4,
            phrase_end_token_id=vocab_size + 5,
        )
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


def _fit_token_rows(name: str, rows: torch.Tensor, vocab_size: int) -> torch.Tensor:
    if len(rows) > vocab_size:
        raise VividMedError(f"{name} has {len(rows)} rows, more than the model's vocab_size {vocab_size}")
    return rows if len(rows) == vocab_size else add_token_rows(rows, vocab_size - len(rows))


def _read_safetensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise VividMedError(f"{folder} has no *.safetensors: convert the checkpoint to safetensors first")
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                yield name, tensors.get_tensor(name)
