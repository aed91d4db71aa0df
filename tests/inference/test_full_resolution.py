"""Masks of a large volume on its own voxels, drawn slab by slab."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.fixtures.volumes import ORIENTATIONS, ball, store
from vividmed import VividMedProcessor
from vividmed.inference import full_resolution
from vividmed.inference.grounding import redraw
from vividmed.models.phrases.grounding import GroundingOutput
from vividmed.processing.medical_image import MedicalImage


def draw_what_is_bright(images, prompts, patch_sizes):
    """A segmenter that finds bright voxels, whatever the prompt."""
    masks = [
        ((image[:1] - 0.5) * 8).expand(len(of_image), -1, -1, -1)
        for image, of_image in zip(images, prompts, strict=True)
    ]
    return SimpleNamespace(masks=masks)


@pytest.mark.parametrize("slab", [1, 1 << 26], ids=["slabs", "whole"])
@pytest.mark.parametrize("orientation", ORIENTATIONS[::19])
def test_masks_lie_on_the_voxels_of_the_image_however_it_is_cut(monkeypatch, orientation, slab):
    monkeypatch.setattr(full_resolution, "SLAB_VOXELS", slab)
    processor = VividMedProcessor.tiny()
    found = ball((110, 90, 100), (50, 40, 55), (40, 35, 40))
    array, affine = store(found.astype(np.uint8) * 255, (0.8, 0.8, 1.5), *orientation)
    image = MedicalImage(np.ascontiguousarray(array.T)[None], affine, oriented=True)
    plan = processor.image_processor.plan(image.size, image.affine)
    logits = torch.stack(
        [plan.apply(torch.from_numpy(image.array[0]) / 255.0) * 8 - 4, torch.full(plan.model_size, -9.0)]
    )
    output = GroundingOutput(prompts=[torch.zeros(2, 4)], masks=[logits])
    model = SimpleNamespace(segmenter=draw_what_is_bright)
    drawn, absent = redraw(model, processor, image, output, plan=plan)
    np.testing.assert_array_equal(drawn, image.array[0] > 0)
    assert absent is None


def test_slabs_cover_every_slice_once_and_see_their_neighbours():
    kept, seen = zip(*full_resolution.slabs(slice(5, 205), 64, 16), strict=True)
    assert [index for slab in kept for index in range(slab.start, slab.stop)] == list(range(5, 205))
    assert max(slab.stop - slab.start for slab in seen) <= 64 * 1.5 + 2 * 16
    assert (seen[1].start, seen[1].stop) == (kept[1].start - 16, kept[1].stop + 16)
