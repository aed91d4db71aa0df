"""Load or build the model and processor that the arguments name."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import PartialState
from transformers import PreTrainedModel, set_seed
from transformers.configuration_utils import PreTrainedConfig
from transformers.utils import logging
from trl import get_peft_config, get_quantization_config

from vividmed.errors import VividMedError
from vividmed.models.configuration_vividmed import VividMedConfig
from vividmed.models.modeling_vividmed import VividMedForCausalLM
from vividmed.models.phrases.grounding import GroundingLosses
from vividmed.processing.processing_vividmed import VividMedProcessor
from vividmed.training.adapters.adapted_model import AdaptedVividMed
from vividmed.training.adapters.groups import GROUNDING_MODULES, PUBLISHED, as_whole_modules, select_modules
from vividmed.training.adapters.peft import (
    adapter_base,
    add_adapter,
    find_adapter,
    load_adapter,
    merge_adapter,
    read_adapter_config,
)
from vividmed.training.hub_files import check_place
from vividmed.training.runs.checkpointing import atomic_folder, readable_write_errors
from vividmed.training.segmenters import SEGMENTERS, attach_segmenters, freeze_modules
from vividmed.training.settings.grounding_arguments import GroundingArguments
from vividmed.training.settings.model_arguments import ModelArguments

logger = logging.get_logger(__name__)


def load_processor(args: ModelArguments) -> VividMedProcessor:
    """Load the processor saved with the model, or the tiny one when no model is named.

    Raises:
        VividMedError: the folder or repository has no processor.
    """
    if args.model_name_or_path is None:
        return _limited(VividMedProcessor.tiny(), args)
    check_place(args.model_name_or_path, "--model_name_or_path")
    try:
        processor = VividMedProcessor.from_pretrained(args.model_name_or_path, revision=args.model_revision)
    except (OSError, ValueError, TypeError) as error:
        if find_adapter(args.model_name_or_path, revision=args.model_revision) is None:
            # Another architecture is the better reason.
            check_architecture(args.model_name_or_path, args.model_revision)
        raise VividMedError(
            f"--model_name_or_path {args.model_name_or_path} has no processor (image processor and tokenizer): save one "
            f"there with VividMedProcessor.save_pretrained ({_one_line(error).partition('. ')[0]})"
        ) from error
    return _limited(processor, args)


def _limited(processor: VividMedProcessor, args: ModelArguments) -> VividMedProcessor:
    """Give the image processor the number of visual tokens that the arguments ask for."""
    if args.max_image_tokens is not None:
        settings = {**processor.image_processor.to_dict(), "max_image_tokens": args.max_image_tokens}
        processor.image_processor = type(processor.image_processor).from_dict(settings)
    return processor


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

    Without ``model_name_or_path`` a tiny model with random weights is built. If ``model_name_or_path`` is an adapter,
    its base model is loaded and the adapter's training continues; the arguments of adapters then take its values. With
    ``continue_adapter`` false, the adapter is merged into its base model and training starts from the result. An
    adapter needs its base model again later, so a base model that exists nowhere else is saved in ``base_folder``.

    Trainable weights are float32, whatever the type of the others, unless ``trainable_dtype`` says otherwise.

    Args:
        args: what to load and how.
        processor: processor whose vocabulary the model must share.
        base_folder: where to save a base model that exists nowhere else.
        seed: random seed for new weights.
        frozen: top-level modules that the stage does not train; those the model lacks are ignored.
        grounding: segmenters to attach, for stages that ground; a tiny model is then built with its own.

    Raises:
        VividMedError: the checkpoint is of another architecture, incomplete, or does not fit the tokenizer.
    """
    source, revision = args.model_name_or_path, args.model_revision
    adapter = None if source is None else find_adapter(source, revision=revision)
    if args.continue_adapter and adapter is None:
        raise VividMedError(
            f"--continue_adapter: {source} is a whole model; name the folder or Hub id of an adapter, or leave it out"
        )
    merged = adapter if args.continue_adapter is False else None
    if merged is not None:
        logger.warning(f"{source} is an adapter: it is merged into its base model")
        source, revision, adapter = adapter_base(merged), "main", None
    if adapter is not None:
        logger.warning(f"{source} is an adapter: its base model is loaded and its training continues")
        take_adapter_settings(args, adapter)
        source, revision = adapter_base(adapter), "main"
    parts = {} if grounding is None else grounding.sources
    losses = None if grounding is None else grounding.losses()
    if source is None:
        set_seed(seed)
        config = VividMedConfig.tiny(vocab_size=len(processor.tokenizer), grounding=grounding is not None)
        dtype = None if args.dtype in (None, "auto") else getattr(torch, args.dtype)
        model: PreTrainedModel = VividMedForCausalLM._from_config(
            config, dtype=dtype, attn_implementation=args.attn_implementation, grounding_losses=losses
        )
    else:
        check_architecture(source, revision)
        # Parts are put together in full precision; the whole is quantised when it is loaded again.
        model = _load(source, args, losses, revision=revision, quantize=not parts and merged is None)
        if merged is not None:
            model = merge_adapter(model, merged)
    if grounding is not None:
        attach_segmenters(model, parts)
    if args.use_peft and (source is None or parts or merged is not None):
        with _main_process_writes(base_folder) as folder:
            if folder is not None:
                model.save_pretrained(folder)
                processor.save_pretrained(folder)
        model = _load(str(base_folder), args, losses)
    model.config.check_tokenizer(processor.tokenizer)
    return prepare_for_training(model, args, processor, adapter=adapter, frozen=frozen)


def prepare_for_training(
    model: PreTrainedModel,
    args: ModelArguments,
    processor: VividMedProcessor,
    *,
    adapter: Path | None,
    frozen: Sequence[str],
) -> PreTrainedModel:
    """Add adapters, freeze what is not trained, and give what is the precision of training.

    Args:
        model: base model, also on the meta device.
        args: how it is trained.
        processor: of the model.
        adapter: folder of the adapter to continue, if there is one.
        frozen: top-level modules that the stage does not train.
    """
    if args.use_peft:
        model = add_or_load_adapter(model, args, processor, adapter=adapter, frozen=frozen)
    elif args.freeze_vision:
        model.model.vision.requires_grad_(False)
    freeze_modules(model, frozen)
    if args.trainable_dtype == "float32":
        # Updates of small learning rates are not rounded away in float32.
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    return model


def add_or_load_adapter(
    model: PreTrainedModel,
    args: ModelArguments,
    processor: VividMedProcessor,
    *,
    adapter: Path | None,
    frozen: Sequence[str],
) -> AdaptedVividMed:
    """Add the adapter that the arguments describe, or load one to continue its training.

    Args:
        model: base model.
        args: kind and size of the adapter.
        processor: of the model.
        adapter: folder of the adapter to continue; None for a new one.
        frozen: top-level modules that the stage does not train.

    Raises:
        VividMedError: the adapter cannot be loaded, or the arguments contradict each other or name no module.
    """
    # PEFT matches names by their ends, so it cannot leave out one of two segmenters.
    trained = [name for name in SEGMENTERS if getattr(model, name, None) is not None and name not in frozen]
    selection = select_modules(
        model,
        groups=args.adapter_groups or (PUBLISHED,),
        freeze_vision=args.freeze_vision,
        adapt_language=args.adapt_language,
        frozen=[name for name in frozen if not trained or name not in SEGMENTERS],
    )
    selection = as_whole_modules(selection, GROUNDING_MODULES)
    if adapter is None:
        return add_adapter(
            model,
            get_peft_config(args),
            selection,
            tokenizer=processor.tokenizer,
            train_boundary_tokens=args.train_boundary_tokens,
        )
    adapted = load_adapter(model, adapter, is_trainable=True)
    config = adapted.peft_config["default"]
    config.base_model_name_or_path = model.name_or_path
    if args.freeze_vision:
        adapted.get_base_model().model.vision.requires_grad_(False)
    for name in GROUNDING_MODULES:
        if name in selection.modules_to_save and name not in (config.modules_to_save or ()):
            adapted.train_whole(name)
    if args.train_boundary_tokens:
        adapted.train_boundary_tokens()
    return adapted


@contextmanager
def _main_process_writes(folder: Path) -> Iterator[Path | None]:
    """Give the main process a folder to write into, which appears complete or not at all; None to the others."""
    state = PartialState()
    with (
        readable_write_errors(folder),
        atomic_folder(folder, is_writer=state.is_main_process, barrier=state.wait_for_everyone) as partial,
    ):
        yield partial if state.is_main_process else None


def take_adapter_settings(args: ModelArguments, adapter: Path) -> None:
    """Make the arguments of adapters say what the loaded adapter is."""
    config = read_adapter_config(adapter)
    args.use_peft = True
    args.lora_r, args.lora_alpha, args.lora_dropout = config.r, config.lora_alpha, config.lora_dropout
    args.use_rslora, args.use_dora = config.use_rslora, config.use_dora
    if args.adapter_groups is not None:
        logger.warning(f"--adapter_groups is left aside: {adapter} keeps the modules that it was made with")
        args.adapter_groups = None


def _load(
    source: str,
    args: ModelArguments,
    losses: GroundingLosses | None,
    *,
    revision: str | None = None,
    quantize: bool = True,
) -> PreTrainedModel:
    quantization = get_quantization_config(args) if quantize else None
    try:
        return VividMedForCausalLM.from_pretrained(
            source,
            revision=revision or "main",
            dtype=args.dtype,
            attn_implementation=args.attn_implementation,
            quantization_config=quantization,
            grounding_losses=losses,
        )
    except VividMedError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise VividMedError(
            f"--model_name_or_path {source}: cannot be loaded ({_one_line(error)}); use a complete checkpoint"
        ) from error


def check_architecture(source: str, revision: str) -> None:
    try:
        settings, _ = PreTrainedConfig.get_config_dict(source, revision=revision)
        found = settings.get("model_type")
    except (OSError, AttributeError) as error:
        raise VividMedError(
            f"--model_name_or_path {source}: no readable config.json found; name a folder or Hub id of a VividMed model "
            f"({_one_line(error)})"
        ) from error
    if found != VividMedConfig.model_type:
        raise VividMedError(
            f"--model_name_or_path {source} is a model of type {found!r}, not 'vividmed'; "
            "build one from CogVLM or a language model with vividmed build, see docs/weights.md"
        )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
