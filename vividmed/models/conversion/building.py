"""A VividMed model from the parts of others: CogVLM, or a language model and a vision tower, and SegVol's segmenter."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vividmed.errors import VividMedError
from vividmed.models.configuration_vividmed import VividMedConfig, VividMedVisionConfig
from vividmed.models.conversion.cogvlm import (
    VISION,
    config_from_cogvlm,
    plan_cogvlm,
    plan_vision_tensor,
)
from vividmed.models.conversion.llama import plan_language_model, text_config_from_llm
from vividmed.models.conversion.reading import CheckpointReader
from vividmed.models.conversion.report import LoadReport
from vividmed.models.conversion.rules import ConversionPlan, Source, all_of
from vividmed.models.conversion.segvol import plan_segmenter, segmenter_prefix, segmenter_sizes
from vividmed.models.modeling_vividmed import VividMedForCausalLM
from vividmed.models.segmenter.configuration_segmenter import InstanceSegmenterConfig, SegmenterConfig
from vividmed.models.segmenter.prompt_encoder import missing_frequencies
from vividmed.triples import Triple

GROUNDING_MODULES = ("segmenter.", "instance_segmenter.", "grounding_projection.")
_FREQUENCIES = "prompt_encoder.position_encoding.frequencies"
# What SegVol has no counterpart of, and what depends on the width of the language model.
_NEW_IN_SEGMENTERS = (
    "grounding_projection.",
    "instance_segmenter.box_head.",
    "instance_segmenter.score_head.",
)
_WIDTH_OF_DECODER = (VISION + "linear_proj.", VISION + "boi", VISION + "eoi")


@dataclass(frozen=True, kw_only=True)
class SegVolWeights:
    """SegVol's weights, and what their shapes do not show.

    Attributes:
        place: file, or folder with one.
        patch_size: (z, y, x) of SegVol's patches.
        position_grid: (z, y, x) of SegVol's position embeddings.
        num_attention_heads: of the image encoder; None for heads of 64 channels.
    """

    place: Path
    patch_size: Sequence[int] = (4, 16, 16)
    position_grid: Sequence[int] = (8, 16, 16)
    num_attention_heads: int | None = None


@dataclass(frozen=True, kw_only=True)
class PlannedModel:
    """A model that can be written: its configuration, and where each of its tensors comes from.

    Attributes:
        config: of the model.
        plan: makes its tensors.
        given: the tensors of the checkpoints, each used or ignored.
        report: what becomes of each tensor.
    """

    config: VividMedConfig
    plan: ConversionPlan
    given: list[Source]
    report: LoadReport

    def shapes(self, dtype: torch.dtype | None) -> dict[str, torch.Tensor]:
        """A tensor without memory for each tensor to write, in the order in which to make them.

        Args:
            dtype: precision of the language model and vision tower; None for that of the embeddings' source.
                Segmenters and their projection are float32.
        """
        if dtype is None:
            rule = self.plan.rules.get("model.embed_tokens.weight")
            dtype = torch.float32 if rule is None else rule.sources[0].shape.dtype
        shapes = {}
        for name in self.plan.names():
            tensor = self.plan.expected[name]
            kept = torch.float32 if name.startswith(GROUNDING_MODULES) else dtype
            shapes[name] = torch.empty(
                tensor.shape, dtype=kept if tensor.is_floating_point() else tensor.dtype, device="meta"
            )
        return shapes


def plan_model_from_cogvlm(
    folder: Path,
    *,
    vocab_size: int | None = None,
    segvol: SegVolWeights | None = None,
    patch_size: Triple = (16, 16, 16),
    position_grid: Triple = (8, 32, 32),
    seed: int = 0,
    allow_partial: bool = False,
) -> PlannedModel:
    """Plan a model from a CogVLM checkpoint.

    Args:
        folder: with CogVLM's config.json and weights.
        vocab_size: number of tokens, the special ones included; by default those of CogVLM and eight more.
        segvol: where both segmenters start; None for a model without segmenters.
        patch_size: (z, y, x) of all patch convolutions.
        position_grid: (z, y, x) of all grids of position embeddings.
        seed: random seed of new tensors.
        allow_partial: make missing tensors new and ignore unknown ones instead of refusing.

    Raises:
        VividMedError: a checkpoint is damaged or incomplete, contains unknown tensors, or does not fit the others.
    """
    config = config_from_cogvlm(
        folder / "config.json", patch_size=patch_size, position_grid=position_grid, vocab_size=vocab_size
    )
    reader = CheckpointReader(folder)
    segvol_reader = _add_segmenters(config, segvol)
    plan = _new_plan(config, seed, allow_partial)
    plan_cogvlm(plan, reader, config)
    given = all_of(reader)
    return _planned(config, plan, given, segvol, segvol_reader, what=f"CogVLM checkpoint {folder}")


def plan_model_from_llm(
    folder: Path,
    *,
    vision: Path | VividMedVisionConfig,
    vocab_size: int | None = None,
    segvol: SegVolWeights | None = None,
    patch_size: Triple | None = None,
    position_grid: Triple | None = None,
    seed: int = 0,
    allow_partial: bool = False,
) -> PlannedModel:
    """Plan a model from a language model of the Llama type.

    Args:
        folder: of the language model.
        vision: folder of a CogVLM or VividMed model whose vision tower to take, or the sizes of a new tower.
        vocab_size: number of tokens, the special ones included; by default those of the language model and eight
            more.
        segvol: as for :func:`plan_model_from_cogvlm`.
        patch_size: (z, y, x) of all patch convolutions; by default that of ``vision``.
        position_grid: (z, y, x) of all grids of position embeddings; by default that of ``vision``.
        seed: random seed of new tensors.
        allow_partial: as for :func:`plan_model_from_cogvlm`.

    Raises:
        VividMedError: as for :func:`plan_model_from_cogvlm`, or the language model is of another type.
    """
    text, tied = text_config_from_llm(folder, vocab_size=vocab_size)
    if vocab_size is None:
        text.vocab_size += 8
    sizes = vision_config_of(vision) if isinstance(vision, Path) else vision.to_dict()
    sizes = {name: sizes[name] for name in _VISION_SIZES if name in sizes}
    sizes |= {} if patch_size is None else {"patch_size": patch_size}
    sizes |= {} if position_grid is None else {"position_grid": position_grid}
    config = VividMedConfig(
        vision_config=sizes,
        text_config=text,
        phrase_start_token_id=text.vocab_size - 4,
        phrase_end_token_id=text.vocab_size - 3,
        tie_word_embeddings=tied,
    )
    segvol_reader = _add_segmenters(config, segvol)
    reader = CheckpointReader(folder)
    plan = _new_plan(config, seed, allow_partial)
    plan_language_model(plan, reader, config)
    given = all_of(reader)
    if isinstance(vision, Path):
        given += _plan_vision(plan, CheckpointReader(vision), config)
    else:
        plan.new |= {name for name in plan.expected if name.startswith(VISION)}
    return _planned(config, plan, given, segvol, segvol_reader, what=f"language model {folder}")


def vision_config_of(folder: Path) -> dict[str, Any]:
    """Sizes of the vision tower of a CogVLM or VividMed model, under our names.

    Raises:
        VividMedError: the folder has no configuration of either.
    """
    path = folder / "config.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        sizes = content["vision_config"]
        if content.get("model_type") == VividMedConfig.model_type:
            return dict(sizes)
        return config_from_cogvlm(
            path, patch_size=(16, 16, 16), position_grid=(8, 32, 32)
        ).vision_config.to_dict()
    except VividMedError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise VividMedError(
            f"{path}: describes no vision tower of a CogVLM or VividMed model; give the folder of one, or 'scratch'"
        ) from error


_VISION_SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_channels",
    "layer_norm_eps",
    "patch_size",
    "position_grid",
)


def _new_plan(config: VividMedConfig, seed: int, allow_partial: bool) -> ConversionPlan:
    with torch.device("meta"):
        model = VividMedForCausalLM(config)
    return ConversionPlan(model, seed=seed, allow_partial=allow_partial)


def _add_segmenters(config: VividMedConfig, segvol: SegVolWeights | None) -> CheckpointReader | None:
    """Configure both segmenters by the shapes of SegVol's weights."""
    if segvol is None:
        return None
    reader = CheckpointReader(segvol.place)
    prefix = segmenter_prefix(reader, preferred="model.")
    sizes = segmenter_sizes(reader, prefix, num_attention_heads=segvol.num_attention_heads)
    sizes |= {
        "patch_size": config.vision_config.patch_size,
        "position_grid": config.vision_config.position_grid,
        "num_channels": config.vision_config.num_channels,
    }
    try:
        config.segmenter_config = SegmenterConfig(**sizes)
        config.instance_segmenter_config = InstanceSegmenterConfig(**sizes)
    except ValueError as error:
        raise VividMedError(f"{segvol.place}: no segmenter can be built ({error})") from error
    return reader


def _plan_vision(plan: ConversionPlan, reader: CheckpointReader, config: VividMedConfig) -> list[Source]:
    """Plan the vision tower; what has the width of another decoder is made anew."""
    given = all_of(reader, VISION)
    if not given:
        raise VividMedError(
            f"{reader.place}: contains no vision tower (names that begin with {VISION}); give the folder of a CogVLM "
            "or VividMed model, or 'scratch'"
        )
    for source in given:
        wanted = plan.expected.get(source.name)
        fits = wanted is not None and wanted.shape == source.shape.shape
        if source.name.startswith(_WIDTH_OF_DECODER) and not fits:
            plan.ignored.append(source)
            plan.new.add(source.name)
        else:
            plan_vision_tensor(plan, source, source.name, config)
    # A projection is one thing: its parts are taken together or not at all.
    projection = [source for source in given if source.name.startswith(VISION + "linear_proj.")]
    if any(source.name in plan.new for source in projection):
        plan.ignored += [source for source in projection if plan.rules.pop(source.name, None)]
        plan.new |= {name for name in plan.expected if name.startswith(VISION + "linear_proj.")}
    return given


def _planned(
    config: VividMedConfig,
    plan: ConversionPlan,
    given: list[Source],
    segvol: SegVolWeights | None,
    segvol_reader: CheckpointReader | None,
    *,
    what: str,
) -> PlannedModel:
    if segvol is not None and segvol_reader is not None:
        prefix = segmenter_prefix(segvol_reader, preferred="model.")
        for module in ("segmenter", "instance_segmenter"):
            plan_segmenter(
                plan,
                module,
                segvol_reader,
                prefix=prefix,
                patch_size=segvol.patch_size,
                position_grid=segvol.position_grid,
            )
        given = given + all_of(segvol_reader, prefix)
        plan.new |= {name for name in plan.expected if name.startswith(_NEW_IN_SEGMENTERS)}
    return check_plan(PlannedModel(config=config, plan=plan, given=given, report=LoadReport()), what=what)


def check_plan(planned: PlannedModel, *, what: str) -> PlannedModel:
    """Account for every tensor and try every rule without memory; returns the model with its report.

    Args:
        planned: model to check.
        what: name of the main checkpoint, for messages.

    Raises:
        VividMedError: tensors are missing, unknown or of other shapes, or a segmenter lacks its frequencies.
    """
    plan = planned.plan
    for name in plan.expected:
        if name.endswith(_FREQUENCIES) and name not in plan.rules:
            raise VividMedError(missing_frequencies(name.removesuffix("position_encoding.frequencies")))
    report = plan.report(planned.given)
    report.raise_if_incomplete(
        what,
        "give complete checkpoints that belong to their config.json, or pass --allow-partial to make missing tensors "
        "new and to ignore unknown ones",
    )
    plan.check_shapes()
    return replace(planned, report=report)
