"""Low-rank adapters: which modules get one, which are trained whole, which stay in full precision.

The published choice: in the vision-language model every linear layer gets an adapter and every other module with
weights (norms, embeddings, the patch convolution) is trained whole and saved with it; outside (language head,
segmenters, grounding projection) everything that is not frozen is trained whole. Freezing the vision tower leaves it
out and, as published, also restricts the decoder's adapters to the vision experts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel

from vividmed.errors import VividMedError

GROUNDING_MODULES = ("segmenter", "instance_segmenter", "grounding_projection")
BOUNDARY_TOKENS_FILE = "boundary_tokens.safetensors"
# Regular expressions on full module names; transformers matches them from the start, up to a dot. The patch
# convolution is no linear layer; it is listed so that a change of its kind cannot quantise it unseen.
FULL_PRECISION_MODULES = (
    "lm_head",
    r"model\.embed_tokens",
    r"model\.vision\.patch_embedding",
    *GROUNDING_MODULES,
)


@dataclass(frozen=True)
class AdapterSelection:
    """Full names of the modules that get a low-rank adapter, and of those that are trained whole beside them."""

    target_modules: list[str]
    modules_to_save: list[str]


def select_modules(
    model: nn.Module,
    *,
    freeze_vision: bool = False,
    adapt_language: bool | None = None,
    frozen: Sequence[str] = (),
) -> AdapterSelection:
    """Choose modules as the published training does.

    Args:
        model: a ``VividMedForCausalLM``.
        freeze_vision: leave the vision tower as it is.
        adapt_language: give the language experts adapters; None for the published coupling, ``not freeze_vision``.
        frozen: top-level modules to leave as they are, e.g. ``segmenter``.

    Returns:
        Names in the order of the model's modules.
    """
    adapt_language = not freeze_vision if adapt_language is None else adapt_language
    targets, whole = [], []
    for name, module in model.named_modules():
        if any(True for _ in module.children()) or not any(True for _ in module.parameters()):
            continue
        root, _, path = name.partition(".")
        if root in frozen or (freeze_vision and name.startswith("model.vision.")):
            continue
        if root != "model" or not isinstance(module, nn.Linear):
            whole.append(name)
        elif adapt_language or "language_" not in path:
            targets.append(name)
    return AdapterSelection(targets, whole)


def as_whole_modules(selection: AdapterSelection, roots: Sequence[str]) -> AdapterSelection:
    """Train and save top-level modules as wholes instead of layer by layer.

    PEFT saves what it wraps: a module without weights of its own, such as the frequencies of the segmenters' position
    code, is only saved as a part of a larger one.
    """
    others = [name for name in selection.modules_to_save if name.partition(".")[0] not in roots]
    chosen = {name.partition(".")[0] for name in selection.modules_to_save}
    return AdapterSelection(selection.target_modules, [*others, *(root for root in roots if root in chosen)])


def add_adapter(
    model: PreTrainedModel,
    config: LoraConfig,
    selection: AdapterSelection,
    *,
    train_boundary_tokens: bool = False,
) -> PeftModel:
    """Wrap a model with trainable adapters.

    Args:
        model: the base model, possibly quantised.
        config: as ``trl.get_peft_config`` makes it; its modules are replaced by ``selection`` where it names none.
        selection: see :func:`select_modules`.
        train_boundary_tokens: also train the begin- and end-of-image tokens. They are bare parameters, which PEFT
            cannot save, and the published training left them frozen; they are kept in a file beside the adapter.

    Raises:
        VividMedError: when PEFT, which matches names by their ends, would wrap other modules than the selected ones.
    """
    if config.target_modules is None:
        config.target_modules = selection.target_modules
        config.modules_to_save = selection.modules_to_save
    names = [name for name, _ in model.named_modules()]
    for wanted in config.modules_to_save or ():
        matched = [name for name in names if name.endswith(wanted)]
        extra = set(matched) - set(selection.modules_to_save)
        if config.modules_to_save is selection.modules_to_save and extra:
            raise VividMedError(
                f"training {wanted} whole would also train {', '.join(sorted(extra))}, whose name ends alike: "
                "freeze both or none, or name --lora_modules_to_save yourself"
            )
    adapted = get_peft_model(model, config)
    if train_boundary_tokens:
        for parameter in boundary_tokens(adapted).values():
            parameter.requires_grad_(True)
    return adapted


def boundary_tokens(model: nn.Module) -> dict[str, nn.Parameter]:
    """The begin- and end-of-image tokens by their names in the base model."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    return {name: base.get_parameter(name) for name in ("model.vision.boi", "model.vision.eoi")}


def save_boundary_tokens(model: PeftModel, folder: Path) -> None:
    """Write the image's begin and end tokens beside the adapter, if they are trained."""
    tokens = boundary_tokens(model)
    if all(parameter.requires_grad for parameter in tokens.values()):
        tensors = {name: parameter.detach().cpu().contiguous() for name, parameter in tokens.items()}
        save_file(tensors, folder / BOUNDARY_TOKENS_FILE)


def load_boundary_tokens(model: PeftModel, folder: Path) -> None:
    """Read what :func:`save_boundary_tokens` wrote; without the file nothing happens."""
    path = folder / BOUNDARY_TOKENS_FILE
    if path.is_file():
        tensors = load_file(path)
        with torch.no_grad():
            for name, parameter in boundary_tokens(model).items():
                parameter.copy_(tensors[name])


def load_adapter(model: PreTrainedModel, folder: str | Path, *, is_trainable: bool = False) -> PeftModel:
    """Put a saved adapter, with its boundary tokens, on its base model."""
    if not (Path(folder) / "adapter_config.json").is_file():
        raise VividMedError(
            f"{folder} holds no adapter_config.json: name a folder that an adapter was saved in"
        )
    adapted = PeftModel.from_pretrained(model, folder, is_trainable=is_trainable)
    load_boundary_tokens(adapted, Path(folder))
    return adapted


def merge_adapter(model: PreTrainedModel, folder: str | Path) -> PreTrainedModel:
    """Work a saved adapter into its base model, which then needs PEFT no more.

    Args:
        model: the base model in floating point. For an adapter trained on a quantised base load the base
            unquantised: the merged weights are then those of the full model plus the adapter.
        folder: where the adapter was saved.
    """
    if getattr(model, "is_quantized", False):
        raise VividMedError(
            "the base model is quantised: load it without quantization_config to merge an adapter"
        )
    return load_adapter(model, folder).merge_and_unload()


def keep_full_precision(config: BitsAndBytesConfig) -> BitsAndBytesConfig:
    """Name the modules that quantisation leaves alone: language head, embeddings, patch embedding, grounding."""
    config.llm_int8_skip_modules = list(FULL_PRECISION_MODULES)
    return config
