"""VividMed: a vision-language model for 2D and 3D medical images that grounds what it writes.

Importing the package registers its classes with the Auto classes of transformers. It imports neither torch nor
transformers: public names load when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vividmed.errors import VividMedError
from vividmed.registration import register_auto_classes
from vividmed.version import __version__

if TYPE_CHECKING:
    from vividmed.models.configuration_vividmed import (
        VividMedConfig,
        VividMedTextConfig,
        VividMedVisionConfig,
    )
    from vividmed.models.modeling_vividmed import VividMedForCausalLM, VividMedModel
    from vividmed.models.segmenter.configuration_segmenter import InstanceSegmenterConfig, SegmenterConfig
    from vividmed.models.segmenter.modeling_segmenter import InstanceSegmenter, Segmenter
    from vividmed.processing.grounded_text import GroundedText, Phrase
    from vividmed.processing.image_processing_vividmed import VividMedImageProcessor
    from vividmed.processing.medical_image import MedicalImage
    from vividmed.processing.processing_vividmed import VividMedProcessor
    from vividmed.processing.reading import read_image

_HOMES = {
    "GroundedText": "vividmed.processing.grounded_text",
    "InstanceSegmenter": "vividmed.models.segmenter.modeling_segmenter",
    "InstanceSegmenterConfig": "vividmed.models.segmenter.configuration_segmenter",
    "MedicalImage": "vividmed.processing.medical_image",
    "Phrase": "vividmed.processing.grounded_text",
    "Segmenter": "vividmed.models.segmenter.modeling_segmenter",
    "SegmenterConfig": "vividmed.models.segmenter.configuration_segmenter",
    "VividMedConfig": "vividmed.models.configuration_vividmed",
    "VividMedForCausalLM": "vividmed.models.modeling_vividmed",
    "VividMedImageProcessor": "vividmed.processing.image_processing_vividmed",
    "VividMedModel": "vividmed.models.modeling_vividmed",
    "VividMedProcessor": "vividmed.processing.processing_vividmed",
    "VividMedTextConfig": "vividmed.models.configuration_vividmed",
    "VividMedVisionConfig": "vividmed.models.configuration_vividmed",
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

register_auto_classes()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
