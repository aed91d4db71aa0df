"""What a converted adapter needs its base model to be, in a file beside the adapter.

A published adapter was trained with rounded rotary positions, and may contain segmenters that its base model does not
have. An adapter's own format cannot say so.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from vividmed.errors import VividMedError
from vividmed.files import write_atomically
from vividmed.models.configuration import UNBUILDABLE, one_line
from vividmed.models.configuration_vividmed import VividMedConfig
from vividmed.models.phrases.grounding import GroundingProjection
from vividmed.models.segmenter.configuration_segmenter import InstanceSegmenterConfig, SegmenterConfig
from vividmed.models.segmenter.modeling_segmenter import InstanceSegmenter, Segmenter

ADAPTER_SETTINGS_FILE = "model_settings.json"
ROUNDING = "model.rotary_emb.low_precision"
"""Name of the tensor (1,) by which a converted adapter asks for rounded rotary positions where only its tensors are
read, as ``PeftModel.from_pretrained`` does. It is not a weight: no model has it, and a merged one does without it."""
_SEGMENTERS: dict[str, tuple[type[SegmenterConfig], type[Segmenter] | type[InstanceSegmenter]]] = {
    "segmenter": (SegmenterConfig, Segmenter),
    "instance_segmenter": (InstanceSegmenterConfig, InstanceSegmenter),
}
GROUNDING_MODULES = (*_SEGMENTERS, "grounding_projection")
"""Names of the modules that ground; those that a model lacks are None there."""


def adapter_settings(config: VividMedConfig) -> dict[str, Any]:
    """The settings of a converted model that its base model may lack."""
    settings: dict[str, Any] = {"rope_low_precision": config.text_config.rope_low_precision}
    for name in _SEGMENTERS:
        segmenter = getattr(config, f"{name}_config")
        settings[f"{name}_config"] = None if segmenter is None else segmenter.to_diff_dict()
    return settings


def read_adapter_settings(path: Path | None) -> dict[str, Any]:
    """Read the settings beside an adapter; empty without a file.

    Raises:
        VividMedError: the file is damaged.
    """
    if path is None or not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise VividMedError(
            f"{path}: cannot be read ({one_line(error)}); convert the adapter again"
        ) from error
    if not isinstance(content, Mapping):
        raise VividMedError(f"{path}: is not a JSON object; convert the adapter again")
    return dict(content)


def write_adapter_settings(path: Path, settings: Mapping[str, Any]) -> None:
    """Write settings as :func:`read_adapter_settings` reads them."""
    write_atomically(path, json.dumps(settings, indent=2, default=list) + "\n")


def configure_base(config: VividMedConfig, settings: Mapping[str, Any]) -> None:
    """Give a base model's configuration what an adapter needs; what it has already stays.

    Raises:
        VividMedError: the settings describe no segmenter.
    """
    if settings.get("rope_low_precision"):
        config.text_config.rope_low_precision = True
    for name, (config_class, _) in _SEGMENTERS.items():
        described = settings.get(f"{name}_config")
        if described is not None and getattr(config, f"{name}_config") is None:
            try:
                setattr(config, f"{name}_config", config_class.from_dict(dict(described)))
            except UNBUILDABLE as error:
                raise VividMedError(
                    f"{ADAPTER_SETTINGS_FILE}: {name}_config describes no segmenter ({one_line(error)}); convert the "
                    "adapter again"
                ) from error


def prepare_base(model: Any, settings: Mapping[str, Any]) -> None:
    """Give a base model what an adapter needs, before the adapter is loaded onto it.

    New segmenters have random weights, which the adapter's replace.

    Args:
        model: a ``VividMedForCausalLM``.
        settings: see :func:`read_adapter_settings`.
    """
    configure_base(model.config, settings)
    model.model.rotary_emb.low_precision = model.config.text_config.rope_low_precision
    for name, (_, segmenter_class) in _SEGMENTERS.items():
        config = getattr(model.config, f"{name}_config")
        if config is not None and getattr(model, name) is None:
            _attach(model, name, segmenter_class(config))
    if model.config.prompt_size is not None and model.grounding_projection is None:
        hidden = model.config.text_config.hidden_size
        _attach(model, "grounding_projection", GroundingProjection(hidden, model.config.prompt_size))


def _attach(model: Any, name: str, module: nn.Module) -> None:
    setattr(model, name, module.to(model.device).train(model.training))
