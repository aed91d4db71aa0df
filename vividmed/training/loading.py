"""Model and processor from what the arguments name."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, set_seed
from transformers.configuration_utils import PreTrainedConfig
from trl import get_peft_config, get_quantization_config

from vividmed.errors import VividMedError
from vividmed.models.configuration_vividmed import VividMedConfig
from vividmed.models.grounding import GroundingLosses
from vividmed.models.modeling_vividmed import VividMedForCausalLM
from vividmed.processing.processing_vividmed import VividMedProcessor
from vividmed.training.arguments import ModelArguments
from vividmed.training.grounding_arguments import GroundingArguments
from vividmed.training.peft import (
    GROUNDING_MODULES,
    add_adapter,
    as_whole_modules,
    keep_full_precision,
    select_modules,
)
from vividmed.training.segmenters import KINDS, attach_segmenters, freeze_modules


def load_processor(args: ModelArguments) -> VividMedProcessor:
    """The processor saved with the model, or the tiny one when no model is named.

    Raises:
        VividMedError: when the folder or repository holds none.
    """
    if args.model_name_or_path is None:
        return VividMedProcessor.tiny()
    try:
        return VividMedProcessor.from_pretrained(args.model_name_or_path, revision=args.model_revision)
    except (OSError, ValueError, TypeError) as error:
        raise VividMedError(
            f"--model_name_or_path {args.model_name_or_path} holds no processor (image processor and tokenizer): "
            f"save one there with VividMedProcessor.save_pretrained ({_one_line(error)})"
        ) from error


def load_model(
    args: ModelArguments,
    processor: VividMedProcessor,
    *,
    base_folder: Path,
    seed: int,
    frozen: Sequence[str] = (),
    grounding: GroundingArguments | None = None,
) -> PreTrainedModel:
    """Build or load the model, quantise it and add adapters, as the arguments say.

    Without ``model_name_or_path`` a tiny model with random weights is made. An adapter needs its base model again
    later, so that one is then kept in ``base_folder``; so is one that was put together from parts.

    Args:
        args: what to load and how.
        processor: whose vocabulary the model must share.
        base_folder: where a base model is kept that is nowhere else.
        seed: of the random weights.
        frozen: top-level modules that the stage does not train; those the model lacks are passed over.
        grounding: which segmenters to put in, for stages that ground; a tiny model then has some.

    Raises:
        VividMedError: when the checkpoint is of another architecture, incomplete, or does not fit the tokenizer.
    """
    source = args.model_name_or_path
    losses = None if grounding is None else grounding.losses()
    if source is None:
        set_seed(seed)
        config = VividMedConfig.tiny(vocab_size=len(processor.tokenizer), grounding=grounding is not None)
        dtype = None if args.dtype in (None, "auto") else getattr(torch, args.dtype)
        model: PreTrainedModel = VividMedForCausalLM._from_config(
            config, dtype=dtype, attn_implementation=args.attn_implementation, grounding_losses=losses
        )
    else:
        _check_architecture(source, args.model_revision)
        # Parts are put together in full precision, and quantised when the whole is loaded.
        model = _load(source, args, losses, quantize=grounding is None or not grounding.sources)
    if grounding is not None:
        attach_segmenters(model, grounding.sources)
    if args.use_peft and (source is None or (grounding is not None and grounding.sources)):
        model.save_pretrained(base_folder)
        processor.save_pretrained(base_folder)
        model = _load(str(base_folder), args, losses)
    model.config.check_tokenizer(processor.tokenizer)
    if args.use_peft:
        # Of two segmenters PEFT cannot leave out one alone, for it matches names by their ends.
        trained = [name for name in KINDS if getattr(model, name, None) is not None and name not in frozen]
        selection = select_modules(
            model,
            freeze_vision=args.freeze_vision,
            adapt_language=args.adapt_language,
            frozen=[name for name in frozen if not trained or name not in KINDS],
        )
        selection = as_whole_modules(selection, GROUNDING_MODULES)
        adapted = add_adapter(
            model, get_peft_config(args), selection, train_boundary_tokens=args.train_boundary_tokens
        )
        freeze_modules(model, frozen)
        return _with_precise_updates(adapted, args)
    if args.freeze_vision:
        model.model.vision.requires_grad_(False)
    freeze_modules(model, frozen)
    return _with_precise_updates(model, args)


def _with_precise_updates(model: Any, args: ModelArguments) -> Any:
    """Store what is trained in float32, where updates of small learning rates are not rounded away."""
    if args.trainable_dtype == "float32":
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    return model


def _load(
    source: str, args: ModelArguments, losses: GroundingLosses | None, *, quantize: bool = True
) -> PreTrainedModel:
    quantization = get_quantization_config(args) if quantize else None
    return VividMedForCausalLM.from_pretrained(
        source,
        revision=args.model_revision,
        dtype=args.dtype,
        attn_implementation=args.attn_implementation,
        quantization_config=None if quantization is None else keep_full_precision(quantization),
        grounding_losses=losses,
    )


def _check_architecture(source: str, revision: str) -> None:
    try:
        settings, _ = PreTrainedConfig.get_config_dict(source, revision=revision)
    except OSError as error:
        raise VividMedError(
            f"--model_name_or_path {source}: no config.json found; name a folder or Hub id of a VividMed model "
            f"({_one_line(error)})"
        ) from error
    found = settings.get("model_type")
    if found != VividMedConfig.model_type:
        raise VividMedError(
            f"--model_name_or_path {source} holds a model of type {found!r}, not 'vividmed'; "
            "CogVLM checkpoints are converted first, see docs/training.md"
        )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
