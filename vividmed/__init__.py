"""VividMed: a vision-language model for 2D and 3D medical images that grounds what it writes.

Importing the package registers its classes with the Auto classes of transformers; public names load when first used.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText

from vividmed.errors import VividMedError
from vividmed.models.configuration_vividmed import VividMedConfig, VividMedTextConfig, VividMedVisionConfig
from vividmed.models.modeling_vividmed import VividMedForCausalLM, VividMedModel
from vividmed.models.segmenter.configuration_segmenter import InstanceSegmenterConfig, SegmenterConfig
from vividmed.models.segmenter.modeling_segmenter import InstanceSegmenter, Segmenter
from vividmed.version import __version__

_LAZY_NAMES = {
    "GroundedText": "vividmed.processing.grounded_text",
    "MedicalImage": "vividmed.processing.medical_image",
    "Phrase": "vividmed.processing.grounded_text",
    "VividMedImageProcessor": "vividmed.processing.image_processing_vividmed",
    "VividMedProcessor": "vividmed.processing.processing_vividmed",
    "read_image": "vividmed.processing.reading",
}

__all__ = [
    "GroundedText",
    "InstanceSegmenter",
    "InstanceSegmenterConfig",
    "MedicalImage",
    "Phrase",
    "Segmenter",
    "SegmenterConfig",
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
    for config_class, model_class in (
        (SegmenterConfig, Segmenter),
        (InstanceSegmenterConfig, InstanceSegmenter),
    ):
        AutoConfig.register(config_class.model_type, config_class)
        AutoModel.register(config_class, model_class)
    # The models need neither files nor pictures, and are importable where their readers are not installed.
    if all(find_spec(name) for name in ("PIL", "nibabel", "pydicom")):
        from vividmed.processing import register

        register()


_register()


def __getattr__(name: str) -> Any:
    if name not in _LAZY_NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY_NAMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
