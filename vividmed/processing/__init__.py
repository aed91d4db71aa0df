"""Layer 1: files, images, geometry, tokens and conversations, turned into what the model takes."""


def register() -> None:
    """Make ``AutoProcessor`` and ``AutoImageProcessor`` know VividMed's classes."""
    from transformers import AutoImageProcessor, AutoProcessor

    from vividmed.models.configuration_vividmed import VividMedConfig
    from vividmed.processing.image_processing_vividmed import VividMedImageProcessor
    from vividmed.processing.processing_vividmed import VividMedProcessor

    # The image processor needs neither PIL's nor torchvision's operations: it is the same for both backends.
    backends = dict.fromkeys(("pil", "torchvision"), VividMedImageProcessor)
    AutoImageProcessor.register(VividMedConfig, image_processor_classes=backends, exist_ok=True)
    AutoProcessor.register(VividMedConfig, VividMedProcessor, exist_ok=True)
