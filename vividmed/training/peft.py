"""Low-rank adapters: which modules get one, which are trained whole, and how adapters are loaded and merged.

The published choice: inside the vision-language model every linear layer gets an adapter, and every other module with
weights (norms, embeddings, the patch convolution) is trained whole and saved with it. Outside of it (language head,
segmenters, grounding projection) everything that is not frozen is trained whole. Freezing the vision tower leaves it
out and, as published, also restricts the decoder's adapters to the vision experts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from peft import LoraConfig, PeftConfig
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel

from vividmed.errors import VividMedError
from vividmed.training.adapted_model import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    BOUNDARY_TOKENS_FILE,
    AdaptedVividMed,
)
from vividmed.training.hub_files import find_file

GROUNDING_MODULES = ("segmenter", "instance_segmenter", "grounding_projection")
# Regular expressions on full module names; transformers matches them from the start, up to a dot. The patch
# convolution is not a linear layer; it is listed in case it becomes one, which quantisation would then pick up.
FULL_PRECISION_MODULES = (
    "lm_head",
    r"model\.embed_tokens",
    r"model\.vision\.patch_embedding",
    *GROUNDING_MODULES,
)


@dataclass(frozen=True)
class AdapterSelection:
    """Full names of the modules that get a low-rank adapter, and of those that are trained whole."""

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
        freeze_vision: leave the vision tower untrained.
        adapt_language: adapt the language experts; None for the published coupling, ``not freeze_vision``.
        frozen: top-level modules to leave untrained, such as ``segmenter``.

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
    """Train and save top-level modules whole instead of layer by layer.

    PEFT saves only what it wraps. A module that has buffers but no weights, such as the frequencies of the segmenters'
    position code, is saved only as part of a larger one.
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
) -> AdaptedVividMed:
    """Wrap a model with trainable adapters.

    Args:
        model: base model, possibly quantised.
        config: as ``trl.get_peft_config`` makes it; its modules are replaced by ``selection`` where it names none.
        selection: see :func:`select_modules`.
        train_boundary_tokens: also train the begin- and end-of-image tokens, which the published training leaves
            frozen.

    Raises:
        VividMedError: PEFT, which matches names by their ends, would wrap other modules than the selected ones, or
            none at all.
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
    config.base_model_name_or_path = model.name_or_path or None
    try:
        adapted = AdaptedVividMed(model, config)
    except ValueError as error:
        raise VividMedError(
            f"--lora_target_modules and --lora_modules_to_save: {' '.join(str(error).split())[:300]}"
        ) from error
    if train_boundary_tokens:
        adapted.train_boundary_tokens()
    return adapted


def find_adapter(source: str | Path, *, revision: str | None = None) -> Path | None:
    """Local folder of an adapter in a folder or Hub repository, after a download if necessary.

    Args:
        source: local folder or Hub id.
        revision: branch, tag or commit of a repository.

    Returns:
        The folder; None if there is no adapter, or a whole model beside one.
    """
    config = find_file(source, ADAPTER_CONFIG, revision=revision)
    if config is None or find_file(source, "config.json", revision=revision) is not None:
        return None
    for name in (ADAPTER_WEIGHTS, BOUNDARY_TOKENS_FILE):
        find_file(source, name, revision=revision)
    return config.parent


def adapter_base(folder: Path) -> str:
    """Folder or Hub id of the base model that an adapter was trained on.

    Raises:
        VividMedError: the adapter names none, or one that is not there any more.
    """
    named = read_adapter_config(folder).base_model_name_or_path
    if (folder / "base_model" / "config.json").is_file() and not (named and Path(named).is_dir()):
        return str(folder / "base_model")
    if not named:
        raise VividMedError(
            f"{folder / ADAPTER_CONFIG}: field 'base_model_name_or_path' is empty; write the folder or Hub id of the "
            "base model there"
        )
    return named


def base_model_of(source: str, revision: str | None = None) -> str:
    """Folder or Hub id of the base model of an adapter; any other model is its own."""
    adapter = find_adapter(source, revision=revision)
    return source if adapter is None else adapter_base(adapter)


def load_adapter(
    model: PreTrainedModel,
    source: str | Path,
    *,
    is_trainable: bool = False,
    revision: str | None = None,
) -> AdaptedVividMed:
    """Load a saved adapter, with its boundary tokens, onto its base model.

    Args:
        model: base model.
        source: local folder or Hub id of the adapter.
        is_trainable: whether its training continues.
        revision: branch, tag or commit of a repository.

    Raises:
        VividMedError: there is no adapter, or it does not fit the model; see :class:`AdaptedVividMed`.
    """
    folder = find_adapter(source, revision=revision)
    if folder is None:
        raise VividMedError(
            f"{source}: has no {ADAPTER_CONFIG}; name a folder or Hub repository that an adapter was saved in"
        )
    config = read_adapter_config(folder)
    config.inference_mode = not is_trainable
    try:
        adapted = AdaptedVividMed(model, config)
    except ValueError as error:
        raise VividMedError(
            f"{folder}: the adapter does not fit the base model ({' '.join(str(error).split())[:200]}); "
            "name the base model that it was trained on"
        ) from error
    adapted.load_adapter(folder, is_trainable=is_trainable)
    return adapted


def merge_adapter(
    model: PreTrainedModel, source: str | Path, *, revision: str | None = None
) -> PreTrainedModel:
    """Merge a saved adapter into its base model, which then no longer needs PEFT.

    Args:
        model: base model in floating point. For an adapter trained on a quantised base, load the base unquantised:
            the merged weights are then those of the full model plus the adapter.
        source: local folder or Hub id of the adapter.
        revision: branch, tag or commit of a repository.

    Raises:
        VividMedError: the model is quantised, or the adapter cannot be loaded; see :func:`load_adapter`.
    """
    if getattr(model, "is_quantized", False):
        raise VividMedError(
            "the base model is quantised: load it without quantization_config to merge an adapter"
        )
    return load_adapter(model, source, revision=revision).merge_and_unload()


def read_adapter_config(folder: Path) -> LoraConfig:
    """Read the configuration of a saved adapter.

    Raises:
        VividMedError: it is damaged, or of another kind than LoRA.
    """
    try:
        config = PeftConfig.from_pretrained(str(folder))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise VividMedError(
            f"{folder / ADAPTER_CONFIG}: cannot be read ({' '.join(str(error).split())[:200]}); "
            "save or download the adapter again"
        ) from error
    if not isinstance(config, LoraConfig):
        raise VividMedError(
            f"{folder / ADAPTER_CONFIG}: an adapter of type {config.peft_type}; only LoRA adapters can be loaded"
        )
    return config


def keep_full_precision(config: BitsAndBytesConfig) -> BitsAndBytesConfig:
    """Exclude the language head, embeddings, patch embedding and grounding modules from quantisation."""
    config.llm_int8_skip_modules = list(FULL_PRECISION_MODULES)
    return config
