"""Registers VividMed's classes with the Auto classes of transformers without importing either.

The Auto classes resolve their own models by name: tables map a model type to class names, and the module
``transformers.models.<model type>`` is imported when one of them is asked for. VividMed's names are added to these
tables as soon as transformers fills them, and ``transformers.models.vividmed`` is the package itself, whose public
names load on first use. ``AutoModel.register`` and its siblings need the classes, and with them torch, up front.
"""

import sys
from types import ModuleType
from typing import Any

from wrapt import register_post_import_hook

_MODULE = "vividmed"
_CONFIGS = {
    "vividmed": "VividMedConfig",
    "vividmed_segmenter": "SegmenterConfig",
    "vividmed_instance_segmenter": "InstanceSegmenterConfig",
}
# By module of transformers and table there: class names by model type.
_NAMES: dict[str, dict[str, dict[str, Any]]] = {
    "modeling_auto": {
        "MODEL_MAPPING": {
            "vividmed": "VividMedModel",
            "vividmed_segmenter": "Segmenter",
            "vividmed_instance_segmenter": "InstanceSegmenter",
        },
        "MODEL_FOR_CAUSAL_LM_MAPPING": {"vividmed": "VividMedForCausalLM"},
        "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING": {"vividmed": "VividMedForCausalLM"},
        "MODEL_FOR_MULTIMODAL_LM_MAPPING": {"vividmed": "VividMedForCausalLM"},
    },
    # The image processor needs neither Pillow's nor torchvision's operations: it is the same for both backends.
    "image_processing_auto": {
        "IMAGE_PROCESSOR_MAPPING": {
            "vividmed": {"torchvision": "VividMedImageProcessor", "pil": "VividMedImageProcessor"}
        }
    },
    "processing_auto": {"PROCESSOR_MAPPING": {"vividmed": "VividMedProcessor"}},
}


def register_auto_classes() -> None:
    """Make the Auto classes know VividMed, now or when transformers imports them."""
    sys.modules.setdefault(f"transformers.models.{_MODULE}", sys.modules[_MODULE])
    register_post_import_hook(_add_configs, "transformers.models.auto.configuration_auto")
    for module in _NAMES:
        register_post_import_hook(_add_names, f"transformers.models.auto.{module}")


def _add_configs(module: ModuleType) -> None:
    module.CONFIG_MAPPING_NAMES.update(_CONFIGS)
    module.SPECIAL_MODEL_TYPE_TO_MODULE_NAME.update(dict.fromkeys(_CONFIGS, _MODULE))


def _add_names(module: ModuleType) -> None:
    for table, names in _NAMES[module.__name__.rpartition(".")[2]].items():
        mapping = getattr(module, table)
        mapping._model_mapping.update(names)
        # Filled from the configurations when the table is made, which was before ours if transformers came first.
        mapping._reverse_config_mapping.update({config: kind for kind, config in _CONFIGS.items()})
