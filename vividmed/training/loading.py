"""Model and processor from what the arguments name."""

from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedModel, set_seed
from transformers.configuration_utils import PreTrainedConfig
from trl import get_peft_config, get_quantization_config

from vividmed.errors import VividMedError
from vividmed.models.configuration_vividmed import VividMedConfig
from vividmed.models.modeling_vividmed import VividMedForCausalLM
from vividmed.processing.processing_vividmed import VividMedProcessor
from vividmed.training.arguments import ModelArguments
from vividmed.training.peft import add_adapter, keep_full_precision, select_modules


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
) -> PreTrainedModel:
    """Build or load the model, quantise it and add adapters, as the arguments say.

    Without ``model_name_or_path`` a tiny model with random weights is made. An adapter needs its base model again
    later, so that one is then kept in ``base_folder``.

    Args:
        args: what to load and how.
        processor: whose vocabulary the model must share.
        base_folder: where the base model of an adapter is kept if it was made here.
        seed: of the random weights.
        frozen: top-level modules that the stage does not train; those the model lacks are passed over.

    Raises:
        VividMedError: when the checkpoint is of another architecture, incomplete, or does not fit the tokenizer.
    """
    if args.model_name_or_path is None:
        set_seed(seed)
        config = VividMedConfig.tiny(vocab_size=len(processor.tokenizer))
        # The usual 0.02 suits widths of thousands; at this width images would be drowned by text for long.
        config.text_config.initializer_range = config.text_config.hidden_size**-0.5
        model: PreTrainedModel = VividMedForCausalLM(config)
        if args.use_peft:
            model.save_pretrained(base_folder)
            processor.save_pretrained(base_folder)
            model = _load(str(base_folder), args)
    else:
        _check_architecture(args.model_name_or_path, args.model_revision)
        model = _load(args.model_name_or_path, args)
    model.config.check_tokenizer(processor.tokenizer)
    if args.use_peft:
        selection = select_modules(
            model, freeze_vision=args.freeze_vision, adapt_language=args.adapt_language, frozen=frozen
        )
        return add_adapter(
            model, get_peft_config(args), selection, train_boundary_tokens=args.train_boundary_tokens
        )
    if args.freeze_vision:
        model.model.vision.requires_grad_(False)
    for name in frozen:
        if (module := getattr(model, name, None)) is not None:
            module.requires_grad_(False)
    return model


def _load(source: str, args: ModelArguments) -> PreTrainedModel:
    quantization = get_quantization_config(args)
    model, report = VividMedForCausalLM.from_pretrained(
        source,
        revision=args.model_revision,
        dtype=args.dtype,
        attn_implementation=args.attn_implementation,
        quantization_config=None if quantization is None else keep_full_precision(quantization),
        output_loading_info=True,
    )
    if missing := sorted(report["missing_keys"]):
        raise VividMedError(
            f"{source}: {len(missing)} weights are missing ({', '.join(missing[:3])}); use a complete checkpoint"
        )
    return model


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
