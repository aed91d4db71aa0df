"""Weights of SegVol and of the published VividMed segmenters, under our names and shapes.

Both come as plain state dicts. Every tensor is accounted for: it is renamed, reshaped, dropped because nothing of
ours computes with it, or refused.
"""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from math import prod
from typing import Any

import torch

from vividmed.errors import VividMedError
from vividmed.models.conversion.initialization import new_tensor
from vividmed.models.conversion.reading import CheckpointReader
from vividmed.models.conversion.report import LoadReport
from vividmed.models.conversion.rules import ConversionPlan, all_of
from vividmed.models.depth import resample
from vividmed.models.segmenter.modeling_segmenter import InstanceSegmenter, Segmenter
from vividmed.models.segmenter.prompt_encoder import missing_frequencies

# Published name (regular expression) -> ours, applied in order.
RENAMES: tuple[tuple[str, str], ...] = (
    (r"patch_embedding\.(?:proj|patch_embeddings\.1)\.", "patch_embedding.projection."),
    (r"patch_embedding\.position_embeddings(?:\.weight)?$", "patch_embedding.position_embedding.weight"),
    (r"image_encoder\.blocks\.", "image_encoder.layers."),
    (r"\.attn\.", ".attention."),
    (r"\.mlp\.lin(?:ear)?(\d)\.", r".mlp.fc\1."),
    (r"pe_layer\.positional_encoding_gaussian_matrix$", "position_encoding.frequencies"),
    (r"\.no_mask_embed\.", ".no_mask_embedding."),
    (r"\.self_attn\.", ".self_attention."),
    (r"\.cross_attn_token_to_image\.", ".token_to_image_attention."),
    (r"\.cross_attn_image_to_token\.", ".image_to_token_attention."),
    (r"\.final_attn_token_to_image\.", ".final_attention."),
    (r"\.norm_final_attn\.", ".final_norm."),
    (r"\.output_upscaling\.0\.", ".upscaling.conv1."),
    (r"\.output_upscaling\.1\.", ".upscaling.norm."),
    (r"\.output_upscaling\.3\.", ".upscaling.conv2."),
    (r"\.output_hypernetworks_mlps\.\d+\.", ".mask_head."),
    (r"\.txt_align_upscaled_embedding\.", ".prompt_head."),
    (r"^box_head\.0\.", "box_head.layers.0."),
    (r"^box_head\.2\.", "box_head.layers.1."),
    (r"^box_head\.4\.", "box_head.layers.2."),
    (r"^disc_head\.0\.", "score_head.layers.0."),
    (r"^disc_head\.2\.", "score_head.layers.1."),
)

# Published names of tensors that no output depends on.
DROPPED = re.compile(
    r"text_encoder\.|"  # the language model's states take the place of SegVol's CLIP text
    r"prompt_encoder\.(point_embeddings|not_a_point_embed|mask_downscaling)\.|"  # prompts are vectors only
    r"mask_decoder\.iou_prediction_head\."  # no estimate of mask quality
)


def segmenter_tensor_name(name: str, *, instance: bool) -> str | None:
    """Translate the name of a published or SegVol tensor to ours.

    Args:
        name: without the prefix of the segmenter (``sam.``, ``isam_model.`` or SegVol's ``model.``).
        instance: whether it goes into an :class:`InstanceSegmenter`, which draws masks with the second of the
            published filter networks, or into a :class:`Segmenter`, which draws with the first.

    Returns:
        Our name, which is the given one where no rule applies; ``None`` for a tensor that nothing computes with.
    """
    network = re.match(r"mask_decoder\.output_hypernetworks_mlps\.(\d+)\.", name)
    if DROPPED.match(name) or (network and int(network[1]) != int(instance)):
        return None
    for published, ours in RENAMES:
        name = re.sub(published, ours, name)
    return name


def plan_segmenter(
    plan: ConversionPlan,
    module: str,
    reader: CheckpointReader,
    *,
    prefix: str,
    patch_size: Sequence[int] = (4, 16, 16),
    position_grid: Sequence[int] = (8, 16, 16),
) -> None:
    """Plan a segmenter of the model from published or SegVol weights, as :func:`convert_segmenter_state_dict` does.

    Args:
        plan: gets the rules.
        module: ``segmenter`` or ``instance_segmenter``.
        reader: the weights; names without ``prefix`` are left to others.
        prefix: as for :func:`convert_segmenter_state_dict`.
        patch_size: as for :func:`convert_segmenter_state_dict`.
        position_grid: as for :func:`convert_segmenter_state_dict`.
    """
    for source in all_of(reader, prefix):
        name = segmenter_tensor_name(
            source.name.removeprefix(prefix), instance=module == "instance_segmenter"
        )
        full = f"{module}.{name}"
        if name is None:
            plan.ignored.append(source)
        elif full in plan.expected:
            wanted = plan.expected[full]
            shape = source.shape.shape
            if tuple(shape) == tuple(wanted.shape):
                plan.copy(source, full)
                continue
            present: torch.Tensor = wanted
            if name == "mask_decoder.mask_tokens.weight" and len(wanted) > shape[0]:
                present = new_tensor(plan.model, full, seed=plan.seed)
            fit = partial(
                _fitted, name=name, present=present, patch_size=patch_size, position_grid=position_grid
            )
            plan.add(full, [source], fit)


def segmenter_sizes(
    reader: CheckpointReader, prefix: str, *, num_attention_heads: int | None = None
) -> dict[str, Any]:
    """Read the sizes of a segmenter's configuration off the shapes of published or SegVol weights.

    Args:
        reader: the weights.
        prefix: as for :func:`convert_segmenter_state_dict`.
        num_attention_heads: of the image encoder, which shapes do not show; by default heads of 64
            channels, or of 8 in encoders whose width is no multiple of 64.

    Raises:
        VividMedError: they are not the weights of a segmenter.
    """
    shapes = {
        name.removeprefix(prefix): tuple(tensor.shape)
        for name, tensor in reader.shapes.items()
        if name.startswith(prefix)
    }
    blocks = {int(m[1]) for name in shapes if (m := re.match(r"image_encoder\.blocks\.(\d+)\.", name))}
    layers = {
        int(m[1]) for name in shapes if (m := re.match(r"mask_decoder\.transformer\.layers\.(\d+)\.", name))
    }
    hidden = shapes.get("image_encoder.norm.weight", (0,))[0]
    inner = shapes.get("image_encoder.blocks.0.mlp.linear1.weight", (0,))[0]
    decoder_inner = shapes.get("mask_decoder.transformer.layers.0.mlp.lin1.weight", (0,))[0]
    if not (blocks and layers and hidden and inner and decoder_inner):
        raise VividMedError(
            f"{reader.place}: contains no segmenter of SegVol's form under {prefix!r} (image_encoder, mask_decoder); "
            "give the weights of SegVol"
        )
    per_head = 64 if hidden % 64 == 0 else 8
    heads = num_attention_heads or max(hidden // per_head, 1)
    return {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": max(blocks) + 1,
        "num_attention_heads": heads,
        "decoder_intermediate_size": decoder_inner,
        "decoder_num_hidden_layers": max(layers) + 1,
    }


def segmenter_prefix(reader: CheckpointReader, *, preferred: str = "") -> str:
    """What stands before ``image_encoder.`` in the names of a segmenter's weights, as ``model.`` in SegVol's.

    Args:
        reader: the weights.
        preferred: the prefix to take if the file contains several segmenters.

    Raises:
        VividMedError: the file contains no segmenter, or several and none under ``preferred``.
    """
    found = sorted({name.partition("image_encoder.")[0] for name in reader if "image_encoder." in name})
    if len(found) > 1 and any(preferred and prefix.endswith(preferred) for prefix in found):
        found = [prefix for prefix in found if preferred and prefix.endswith(preferred)]
    if len(found) != 1:
        what = f"several segmenters ({', '.join(found)})" if found else "no segmenter (image_encoder.)"
        raise VividMedError(f"{reader.place}: contains {what}; give the weights of one segmenter")
    return found[0]


def convert_segmenter_state_dict(
    state_dict: Mapping[str, torch.Tensor],
    model: Segmenter | InstanceSegmenter,
    *,
    prefix: str = "",
    patch_size: Sequence[int] = (4, 16, 16),
    position_grid: Sequence[int] = (8, 16, 16),
) -> tuple[dict[str, torch.Tensor], LoadReport]:
    """Rename and reshape published or SegVol weights to those of ``model``.

    Patch kernels and position grids of other sizes are resampled. A kernel for one channel is spread over the
    model's channels, so that a grey image gives what it gave before. Layer norms over (C, d, h, w) are averaged over
    space. Surplus mask tokens are cut, and missing ones keep the model's own values.

    Args:
        state_dict: tensors by name; those without ``prefix`` are ignored.
        model: model to fill; its own values stay where a SegVol checkpoint has none.
        prefix: ``"sam."`` or ``"isam_model."`` in published checkpoints, ``"model."`` in SegVol's.
        patch_size: (z, y, x) of SegVol's patch kernel, whose flat tensor does not show it.
        position_grid: (z, y, x) of SegVol's flat position embeddings.

    Returns:
        The state dict and the report. Missing and unknown tensors are reported, not refused.

    Raises:
        VividMedError: the shape of a tensor cannot be made to fit.
    """
    report = LoadReport()
    present = model.state_dict()
    converted: dict[str, torch.Tensor] = {}
    from_segvol = False
    for source, tensor in state_dict.items():
        if not source.startswith(prefix):
            continue
        name = segmenter_tensor_name(
            source.removeprefix(prefix), instance=isinstance(model, InstanceSegmenter)
        )
        if name is None:
            report.dropped.append(source)
            continue
        if name not in present:
            report.unexpected.append(source)
            continue
        from_segvol |= name.endswith("projection.weight") and tensor.ndim == 2
        value = fit_segmenter_tensor(
            name, tensor, present[name], patch_size=patch_size, position_grid=position_grid
        )
        if value.shape != present[name].shape:
            raise VividMedError(
                f"{source} has shape {tuple(tensor.shape)} but the model's {name} has "
                f"{tuple(present[name].shape)}: configure the model with the widths of the weights"
            )
        (report.copied if value is tensor else report.converted).append(name if value is tensor else source)
        converted[name] = value
    for name in present.keys() - converted.keys():
        new_head = from_segvol and name.startswith(("box_head.", "score_head."))
        (report.initialized if new_head else report.missing).append(name)
    report.initialized.sort()
    report.missing.sort()
    return converted, report


def load_segmenter_weights(
    model: Segmenter | InstanceSegmenter,
    state_dict: Mapping[str, torch.Tensor],
    *,
    prefix: str = "",
    patch_size: Sequence[int] = (4, 16, 16),
    position_grid: Sequence[int] = (8, 16, 16),
) -> LoadReport:
    """Fill a segmenter with published or SegVol weights; arguments as in :func:`convert_segmenter_state_dict`.

    SegVol has no box and score heads: those of an :class:`InstanceSegmenter` stay as they are and are reported as
    initialized.

    Raises:
        VividMedError: a tensor is missing, unknown, or does not fit.
    """
    converted, report = convert_segmenter_state_dict(
        state_dict, model, prefix=prefix, patch_size=patch_size, position_grid=position_grid
    )
    if any(name.endswith("position_encoding.frequencies") for name in report.missing):
        raise VividMedError(missing_frequencies("prompt_encoder."))
    report.raise_if_incomplete(
        "the segmenter checkpoint", "check the prefix, and that model and weights have equally many layers"
    )
    model.load_state_dict(converted, strict=False)
    return report


def fit_segmenter_tensor(
    name: str,
    tensor: torch.Tensor,
    present: torch.Tensor,
    *,
    patch_size: Sequence[int] = (4, 16, 16),
    position_grid: Sequence[int] = (8, 16, 16),
) -> torch.Tensor:
    """Give a tensor the shape that it has in our model, by the rule for its name.

    Args:
        name: our name of the tensor.
        tensor: tensor of the checkpoint.
        present: tensor of the model.
        patch_size: see :func:`convert_segmenter_state_dict`.
        position_grid: see :func:`convert_segmenter_state_dict`.

    Returns:
        A new tensor, or ``tensor`` itself if it fits already or no rule makes it fit.
    """
    if tensor.shape == present.shape:
        return tensor
    if name.endswith("projection.weight"):
        return _fit_patch_kernel(tensor, present.shape, patch_size)
    if name.endswith("position_embedding.weight"):
        return _fit_positions(tensor, present.shape[2:], position_grid)
    if name.startswith("mask_decoder.upscaling.norm.") and tensor.ndim == 4:
        return tensor.mean((1, 2, 3))
    if name == "mask_decoder.mask_tokens.weight":
        return torch.cat([tensor[: len(present)], present[len(tensor) :].to(tensor)])
    return tensor


def _fitted(tensor: torch.Tensor, *, name: str, present: torch.Tensor, **sizes: Any) -> torch.Tensor:
    if tensor.is_meta:
        present = present.to("meta")
    return fit_segmenter_tensor(name, tensor, present, **sizes)


def _fit_patch_kernel(kernel: torch.Tensor, shape: Sequence[int], patch_size: Sequence[int]) -> torch.Tensor:
    """Resample a patch kernel and spread it over the channels.

    Args:
        kernel: (E, z * y * x * C) with channels last, or (E, C, z, y, x).
        shape: (E, channels, z, y, x) to make.
        patch_size: (z, y, x) of a flat ``kernel``.
    """
    if kernel.ndim == 2:
        if kernel.shape[1] % prod(patch_size):
            raise VividMedError(
                f"a patch kernel of {kernel.shape[1]} numbers cannot have patches of {tuple(patch_size)}: "
                "give the patch_size of the checkpoint"
            )
        kernel = kernel.unflatten(1, (*patch_size, -1)).movedim(-1, 1)
    kernel = resample(kernel, shape[2:], conserve_sum=True)
    if kernel.shape[1] == 1:
        kernel = kernel.repeat(1, shape[1], 1, 1, 1) / shape[1]
    return kernel


def _fit_positions(positions: torch.Tensor, grid: Sequence[int], source_grid: Sequence[int]) -> torch.Tensor:
    """(1, d * h * w, E) of ``source_grid``, or (1, E, d, h, w), resampled to ``grid``."""
    if positions.ndim == 3:
        if positions.shape[1] != prod(source_grid):
            raise VividMedError(
                f"{positions.shape[1]} position embeddings do not fill a grid of {tuple(source_grid)}: "
                "give the position_grid of the checkpoint"
            )
        positions = positions.mT.unflatten(2, tuple(source_grid))
    return resample(positions, grid)
