"""Small models, rows and runs for tests of training; everything on the CPU in a second."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from datasets import Dataset
from PIL import Image

from vividmed.data.batches.collator import VividMedCollator
from vividmed.data.schema import schema
from vividmed.models.configuration_vividmed import VividMedConfig, VividMedTextConfig, VividMedVisionConfig
from vividmed.models.modeling_vividmed import VividMedForCausalLM
from vividmed.processing.image_processing_vividmed import VividMedImageProcessor
from vividmed.processing.processing_vividmed import VividMedProcessor
from vividmed.training.arguments import VividMedTrainingArguments
from vividmed.training.trainer import VividMedTrainer

MAX_LENGTH = 96


def small_processor() -> VividMedProcessor:
    """Few image tokens, so that a step takes milliseconds."""
    image_processor = VividMedImageProcessor(patch_size=(4, 16, 16), max_image_tokens=4, max_slice_tokens=2)
    return VividMedProcessor(image_processor, VividMedProcessor.tiny().tokenizer)


def small_config(processor: VividMedProcessor) -> VividMedConfig:
    size = len(processor.tokenizer)
    return VividMedConfig(
        vision_config=VividMedVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            patch_size=(4, 16, 16),
            position_grid=(2, 2, 2),
        ),
        text_config=VividMedTextConfig(
            vocab_size=size, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2
        ),
        phrase_start_token_id=size - 4,
        phrase_end_token_id=size - 3,
    )


def small_model(processor: VividMedProcessor) -> VividMedForCausalLM:
    from transformers import set_seed

    set_seed(0)
    return VividMedForCausalLM(small_config(processor))


def make_row(number: int) -> dict[str, Any]:
    """A picture, or for every fourth number a volume, bright or dark; answers differ in length."""
    generator = np.random.default_rng(number)
    bright = number % 2 == 0
    picture = generator.integers(0, 60, (32, 32)).astype(np.uint8) + np.uint8(150 * bright)
    is_volume = number % 4 == 3
    volume = nib.Nifti1Image(np.repeat(picture.T[:, :, None], 11, axis=2).astype(np.int16), np.eye(4))
    modality = "CT" if bright else "MRI"
    answer = f"The modality of this image is {modality}." + " It is a test." * (number % 3)
    return {
        "id": f"row-{number}",
        "patient": f"patient-{number % 5}",
        "images": [] if is_volume else [Image.fromarray(picture)],
        "volumes": [volume] if is_volume else [],
        "modality": modality,
        "plane": "axial",
        "messages": [
            {"role": "user", "content": "What is the modality of this image?"},
            {"role": "assistant", "content": answer},
        ],
        "kind": "modality",
        "source": "made up for a test",
        "licence": "none",
    }


def make_rows(numbers: Sequence[int]) -> Dataset:
    return Dataset.from_list([make_row(number) for number in numbers], features=schema("vision_language"))


def small_arguments(folder: Path, **changes: Any) -> VividMedTrainingArguments:
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "use_cpu": True,
        "max_steps": 4,
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 4,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "save_steps": 100,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    return VividMedTrainingArguments(**{**settings, **changes})


def small_trainer(
    folder: Path,
    *,
    model: Any = None,
    rows: Any = None,
    eval_rows: Any = None,
    packing: bool = False,
    **changes: Any,
) -> VividMedTrainer:
    """A trainer on twelve rows; ``changes`` go to the training arguments."""
    processor = small_processor()
    return VividMedTrainer(
        model=small_model(processor) if model is None else model,
        args=small_arguments(folder, **changes),
        processing_class=processor,
        data_collator=VividMedCollator(
            processor, max_length=MAX_LENGTH, packing=packing, augmentation_seed=1
        ),
        train_dataset=make_rows(range(12)) if rows is None else rows,
        eval_dataset=make_rows(range(20, 27)) if eval_rows is None else eval_rows,
    )


def logged(trainer: VividMedTrainer, name: str = "loss") -> list[float]:
    """The values of one name in the training log."""
    return [line[name] for line in trainer.state.log_history if name in line]
