"""A VividMed model with a low-rank adapter that keeps, and accounts for, every tensor of the adapter."""

import os
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModelForCausalLM, get_peft_model_state_dict
from peft.tuners import lora
from peft.utils import ModulesToSaveWrapper
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel

from vividmed.errors import VividMedError
from vividmed.models.adapters.settings import ADAPTER_SETTINGS_FILE, ROUNDING, write_adapter_settings

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
# Adapters saved by version 0.1 keep their boundary tokens in a file of their own.
BOUNDARY_TOKENS_FILE = "boundary_tokens.safetensors"
_BOUNDARY_TOKENS = ("model.vision.boi", "model.vision.eoi")
_PREFIX = "base_model.model."
# Names that the published code gives to segmenters and to the projection that prompts them.
_PUBLISHED_PREFIXES = ("sam.", "isam_model.", "isam.", "vg_proj.")


class AutocastLinear(lora.Linear):
    """PEFT's layer, which turns its input to the float32 of its trained weights even where autocast turns it back.

    Without these two copies of every input, a training step of the 17B on an H200 took 1.70 instead of 2.03 s.
    """

    def _cast_input_dtype(self, x: Any, dtype: torch.dtype) -> Any:
        if x is not None and torch.is_autocast_enabled(x.device.type):
            return x
        return super()._cast_input_dtype(x, dtype)


class AdaptedVividMed(PeftModelForCausalLM):
    """PEFT's causal language model around a ``VividMedForCausalLM``.

    It differs from its parent in four ways:

    - The begin- and end-of-image tokens are parameters without a module of their own, which PEFT does not save. Once
      they are trained, they are written into the adapter's file under their names in the model. PEFT and transformers
      load them from there like any other tensor, even without this class.
    - A saved adapter loads completely or not at all. Tensors that the model has no place for, tensors that are missing
      and values that are not finite are refused by name.
    - Its linear layers do not change the precision of their input under autocast.
    - What the adapter needs its base model to be (``settings``) is saved with it: adapters that continue a converted
      one need it as well.

    Args:
        model: base model, possibly quantised.
        config: configuration of the adapter.
    """

    def __init__(self, model: PreTrainedModel, config: LoraConfig):
        super().__init__(model, config)
        for module in self.modules():
            if type(module) is lora.Linear:
                module.__class__ = AutocastLinear
        self.has_boundary_tokens = False
        self.settings: dict[str, Any] = {}

    def train_boundary_tokens(self) -> None:
        """Make the begin- and end-of-image tokens a trainable part of the adapter."""
        self.has_boundary_tokens = True
        for parameter in boundary_tokens(self).values():
            parameter.requires_grad_(True)

    def train_whole(self, name: str) -> None:
        """Add a top-level module of the base model to those that are trained and saved whole."""
        base, config = self.get_base_model(), self.peft_config["default"]
        wrapper = ModulesToSaveWrapper(getattr(base, name), "default")
        wrapper.set_adapter("default")
        setattr(base, name, wrapper)
        config.modules_to_save = [*(config.modules_to_save or ()), name]

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Save the adapter with its boundary tokens; see ``PeftModel.save_pretrained``."""
        # PEFT would ask the Hub whether the base model's vocabulary has grown; embeddings are saved whole anyway.
        super().save_pretrained(str(save_directory), **{"save_embedding_layers": False, **kwargs})
        if not kwargs.get("is_main_process", True):
            return
        folder = Path(save_directory)
        added: dict[str, torch.Tensor] = {}
        if self.has_boundary_tokens:
            state = kwargs.get("state_dict") or self.state_dict()
            added = {f"{_PREFIX}{name}": state[f"{_PREFIX}{name}"] for name in _BOUNDARY_TOKENS}
        if self.settings:
            write_adapter_settings(folder / ADAPTER_SETTINGS_FILE, self.settings)
            if self.settings.get("rope_low_precision"):
                added[f"{_PREFIX}{ROUNDING}"] = torch.ones(1)
        if added:
            path = folder / ADAPTER_WEIGHTS
            tensors = load_file(path) | {n: t.detach().cpu().contiguous() for n, t in added.items()}
            partial = path.with_name(f".{path.name}.partial")
            save_file(tensors, partial, metadata={"format": "pt"})
            partial.replace(path)

    def load_adapter(
        self,
        model_id: str | os.PathLike,
        adapter_name: str = "default",
        is_trainable: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Load the weights of a saved adapter; see ``PeftModel.load_adapter``.

        Args:
            model_id: local folder of the adapter.
            adapter_name: name of the adapter in this model.
            is_trainable: whether its training continues.
            **kwargs: passed on.

        Raises:
            VividMedError: the file is damaged, or its tensors are not exactly those that the model needs.
        """
        folder = Path(model_id)
        found = _read(folder / ADAPTER_WEIGHTS)
        tokens = {f"{_PREFIX}{name}" for name in _BOUNDARY_TOKENS}
        expected = get_peft_model_state_dict(
            self, adapter_name=adapter_name, save_embedding_layers=False
        ).keys() | (tokens if tokens & found.keys() else set())
        _check_names(folder, found.keys() - expected - {f"{_PREFIX}{ROUNDING}"}, expected - found.keys())
        try:
            result = super().load_adapter(str(folder), adapter_name, is_trainable=is_trainable, **kwargs)
        except RuntimeError as error:
            raise VividMedError(
                f"{folder}: the adapter does not fit the base model ({' '.join(str(error).split())[:200]}); "
                "name the base model that it was trained on"
            ) from error
        own_file = folder / BOUNDARY_TOKENS_FILE
        if own_file.is_file():
            saved = _read(own_file)
            with torch.no_grad():
                for name, parameter in boundary_tokens(self).items():
                    parameter.copy_(saved[name])
        self.has_boundary_tokens |= bool(tokens & found.keys()) or own_file.is_file()
        if self.has_boundary_tokens and is_trainable:
            self.train_boundary_tokens()
        return result


def boundary_tokens(model: nn.Module) -> dict[str, nn.Parameter]:
    """The begin- and end-of-image tokens by their names in the base model."""
    base = model.get_base_model() if isinstance(model, PeftModelForCausalLM) else model
    return {name: base.get_parameter(name) for name in _BOUNDARY_TOKENS}


def _read(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a file, mapped into memory."""
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise VividMedError(
            f"{path}: cannot be read ({' '.join(str(error).split())}); save or download the adapter again"
        ) from error
    broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if broken:
        raise VividMedError(
            f"{path}: {len(broken)} tensors contain NaN or infinite values ({broken[0]}); use another checkpoint"
        )
    return tensors


def _check_names(folder: Path, unused: set[str], missing: set[str]) -> None:
    """Refuse an adapter that has tensors too many or too few."""
    if unused:
        first = sorted(unused)[0]
        published = any(name.removeprefix(_PREFIX).startswith(_PUBLISHED_PREFIXES) for name in unused)
        remedy = (
            "sam., isam_model. and vg_proj. are the published names of the segmenters and their projection, "
            "which vividmed convert turns into ours"
            if published
            else "name the base model that the adapter was trained on, with its segmenters"
        )
        raise VividMedError(
            f"{folder}: the base model has no place for {len(unused)} tensors of the adapter ({first}); {remedy}"
        )
    if missing:
        raise VividMedError(
            f"{folder}: the adapter lacks {len(missing)} tensors that its configuration promises "
            f"({sorted(missing)[0]}); save or download it again"
        )
