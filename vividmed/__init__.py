"""VividMed: a vision-language model for 2D and 3D medical images that grounds what it writes.

Importing the package registers its classes with the Auto classes of transformers; public names load when first used.
"""

from importlib import import_module
from typing import Any

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText

from vividmed.errors import VividMedError
from vividmed.models.configuration_vividmed import VividMedConfig, VividMedTextConfig, VividMedVisionConfig
from vividmed.models.modeling_vividmed import VividMedForCausalLM, VividMedModel
from vividmed.version import __version__

_LAZY_NAMES = {
    "MedicalImage": "vividmed.processing.reading",
    "VividMedImageProcessor": "vividmed.processing.image_processing_vividmed",
    "VividMedProcessor": "vividmed.processing.processing_vividmed",
    "read_image": "vividmed.processing.reading",
}

__all__ = [
    "MedicalImage",
    "VividMedConfig",
    "VividMedError",
    "VividMedForCausalLM",
    "VividMedImageProcessor",
    "VividMedModel",
    "VividMedProcessor",
    "VividMedTextConfig",
    "VividMedVisionConfig",
    "__version__",
    "read_image",
]


def _register() -> None:
    AutoConfig.register("vividmed", VividMedConfig)
    AutoModel.register(VividMedConfig, VividMedModel)
    AutoModelForCausalLM.register(VividMedConfig, VividMedForCausalLM)
    AutoModelForImageTextToText.register(VividMedConfig, VividMedForCausalLM)


_register()


def __getattr__(name: str) -> Any:
    if name not in _LAZY_NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY_NAMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
