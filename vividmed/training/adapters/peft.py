"""Low-rank adapters: how they are added, found, loaded and merged."""

from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftConfig
from transformers import PreTrainedModel

from vividmed.errors import VividMedError
from vividmed.hub.base_model import is_hub_id
from vividmed.models.adapters.settings import ADAPTER_SETTINGS_FILE, prepare_base, read_adapter_settings
from vividmed.training.adapters.adapted_model import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    BOUNDARY_TOKENS_FILE,
    AdaptedVividMed,
)
from vividmed.training.adapters.groups import AdapterSelection, token_rows
from vividmed.training.hub_files import find_file
from vividmed.training.presence import RECORD, read_record


def add_adapter(
    model: PreTrainedModel,
    config: LoraConfig,
    selection: AdapterSelection,
    *,
    tokenizer: Any = None,
    train_boundary_tokens: bool = False,
) -> AdaptedVividMed:
    """Wrap a model with trainable adapters.

    Args:
        model: base model, possibly quantised.
        config: as ``trl.get_peft_config`` makes it; its modules are replaced by ``selection`` where it names none.
        selection: see :func:`~vividmed.training.adapters.groups.select_modules`.
        tokenizer: of the model; needed where the selection trains the rows of the added tokens.
        train_boundary_tokens: also train the begin- and end-of-image tokens, which the published training leaves
            frozen.

    Raises:
        VividMedError: PEFT, which matches names by their ends, would wrap other modules than the selected ones, or
            none at all.
    """
    if config.target_modules is None:
        config.target_modules = selection.target_modules
        config.modules_to_save = selection.modules_to_save
        if selection.token_rows:
            config.trainable_token_indices = token_rows(tokenizer)
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
    for name in (ADAPTER_WEIGHTS, BOUNDARY_TOKENS_FILE, ADAPTER_SETTINGS_FILE, RECORD):
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
    if not Path(named).is_dir() and not is_hub_id(named):
        raise VividMedError(
            f"{folder}: is an adapter for {named!r}, which is neither a folder here nor a model on the Hub; put the base "
            f"model there, or write its Hub id into base_model_name_or_path of {ADAPTER_CONFIG}"
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
    settings = read_adapter_settings(folder / ADAPTER_SETTINGS_FILE)
    prepare_base(model, settings)
    try:
        adapted = AdaptedVividMed(model, config)
    except ValueError as error:
        raise VividMedError(
            f"{folder}: the adapter does not fit the base model ({' '.join(str(error).split())[:200]}); "
            "name the base model that it was trained on"
        ) from error
    adapted.settings = settings
    adapted.load_adapter(folder, is_trainable=is_trainable)
    read_record(adapted.config, folder)
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
