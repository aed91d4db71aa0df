"""Our own models as localizers of pseudo-labels: a trained model, and a run of an alignment stage."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.fixtures.training import small_model, small_processor
from vividmed.data.pseudo_labels.localizers import Request
from vividmed.errors import VividMedError
from vividmed.inference.localizer import ModelLocalizer, SegmenterLocalizer, open_localizer
from vividmed.models.segmenter.configuration_segmenter import InstanceSegmenterConfig, SegmenterConfig
from vividmed.models.segmenter.modeling_segmenter import InstanceSegmenter, Segmenter
from vividmed.processing.image_processing_vividmed import VividMedImageProcessor
from vividmed.processing.medical_image import MedicalImage
from vividmed.training.alignment import PromptTableSegmenter
from vividmed.training.runs.checkpointing import checkpoint_folder, write_manifest


def request(*targets: str, depth: int = 6) -> Request:
    array = np.random.default_rng(0).integers(0, 255, (1, depth, 20, 24), dtype=np.uint8)
    image = MedicalImage(array, np.diag([-2.0, -2.0, 5.0, 1.0]), oriented=depth > 1)
    return Request("case", 0, 1, image, targets)


def run_folder(folder, segmenter):
    """What a run of an alignment stage leaves."""
    torch.manual_seed(0)
    model = PromptTableSegmenter(segmenter)
    segmenter.save_pretrained(folder)
    VividMedImageProcessor(patch_size=(4, 16, 16), max_image_tokens=8, max_slice_tokens=2).save_pretrained(
        folder
    )
    checkpoint = checkpoint_folder(folder, 1)
    checkpoint.mkdir(parents=True)
    save_file(
        {name: value.contiguous() for name, value in model.state_dict().items()},
        checkpoint / "model.safetensors",
    )
    write_manifest(checkpoint)
    return folder


@pytest.mark.parametrize(
    ("segmenter", "label_type"),
    [(Segmenter(SegmenterConfig.tiny()), "mask"), (InstanceSegmenter(InstanceSegmenterConfig.tiny()), "box")],
    ids=["align-sam", "align-isam"],
)
def test_a_run_of_an_alignment_stage_is_prompted_by_its_table(tmp_path, segmenter, label_type):
    localizer = open_localizer(str(run_folder(tmp_path / "run", segmenter)), least_score=0.0)
    assert isinstance(localizer, SegmenterLocalizer)
    asked = request("liver", "spleen", depth=6 if label_type == "mask" else 1)
    found = list(localizer.locate(asked))
    assert found
    for each in found:
        assert each.target in ("liver", "spleen")
        assert 0 <= each.score <= 1
        box = each.patch.box if label_type == "mask" else each.box
        assert all(
            0 <= low < high <= n for low, high, n in zip(box[:3], box[3:], asked.image.size, strict=True)
        )
    again = list(open_localizer(str(tmp_path / "run"), least_score=0.0).locate(asked))
    assert [(each.target, each.score) for each in again] == [(each.target, each.score) for each in found]


def test_a_model_without_segmenters_is_refused(tmp_path):
    processor = small_processor()
    small_model(processor).save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    with pytest.raises(VividMedError, match="no segmenter"):
        open_localizer(str(tmp_path / "model"))


def test_a_trained_model_is_asked_for_each_target():
    from tests.fixtures.paths import CHECKPOINTS

    localizer = open_localizer(str(CHECKPOINTS / "556ac31/model"), least_score=0.0)
    assert isinstance(localizer, ModelLocalizer)
    for found in localizer.locate(request("liver", "lung nodule")):
        assert found.target in ("liver", "lung nodule")
        assert (found.patch is None) != (found.box is None)
