import nibabel as nib
import numpy as np
import pytest
import torch

from tests.fixtures.volumes import ORIENTATIONS, store
from vividmed.processing.image_processing_vividmed import VividMedImageProcessor
from vividmed.processing.orientation import canonical_axes, canonical_orientation
from vividmed.processing.reading import read_image

PROCESSOR = VividMedImageProcessor(patch_size=(4, 16, 16), max_image_tokens=36)


def patient() -> np.ndarray:
    """A volume along (right, anterior, superior): bright on the left, brighter in front, brightest on top."""
    right, anterior, superior = np.meshgrid(*(np.linspace(0, 1, n) for n in (30, 26, 12)), indexing="ij")
    return ((1 - right) * 100 + anterior * 300 + superior * 500).astype(np.float32)


@pytest.mark.parametrize("spacing", [(0.8, 0.8, 3.0), (3.0, 0.8, 0.8), (0.8, 3.0, 0.8)])
def test_the_model_sees_one_volume_in_all_48_orientations(spacing):
    seen = []
    for order, signs in ORIENTATIONS:
        data, affine = store(patient(), spacing, order, signs)
        seen.append(PROCESSOR.prepare(nib.Nifti1Image(data, affine)).grounding_values)
    for values in seen[1:]:
        torch.testing.assert_close(values, seen[0], atol=1e-5, rtol=0)


def test_left_stays_left_in_all_48_orientations():
    for order, signs in ORIENTATIONS:
        world = np.zeros((30, 26, 12), dtype=np.float32)
        world[:8, 10:20, 3:9] = 1  # the patient's left: small values along the axis that runs right
        data, affine = store(world, (0.8, 0.8, 3.0), order, signs)
        image = read_image(nib.Nifti1Image(data, affine))
        plan = PROCESSOR.plan(image.size, image.affine)
        model = plan.apply(torch.from_numpy(image.array.copy()))[0]
        # Axial: slices run superior, rows right, columns anterior.
        assert model[:, : model.shape[1] // 2].sum() > 10 * model[:, model.shape[1] // 2 :].sum()
        # And a mask that the model would draw there comes back on the left of the file's own grid.
        restored = plan.restore_mask(model).numpy()
        overlap = 2 * (restored & (image.array[0] > 0)).sum() / (restored.sum() + (image.array[0] > 0).sum())
        assert overlap > 0.9


def test_the_affine_stays_true_for_every_orientation():
    for order, signs in ORIENTATIONS:
        world = np.zeros((30, 26, 12), dtype=np.float32)
        world[3, 20, 7] = 1
        data, affine = store(world, (0.8, 0.7, 3.0), order, signs)
        image = read_image(nib.Nifti1Image(data, affine))
        index = np.argwhere(image.array[0] == 1)[0][::-1]
        np.testing.assert_allclose((image.affine @ [*index, 1])[:3], [3 * 0.8, 20 * 0.7, 7 * 3.0], atol=1e-4)


def test_oblique_volumes_take_the_nearest_orientation():
    angle = np.deg2rad(20)
    rotation = np.eye(4)
    rotation[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    straight = np.diag([-0.8, -0.8, 3.0, 1.0])
    assert canonical_axes((12, 26, 30), rotation @ straight) == canonical_axes((12, 26, 30), straight)


@pytest.mark.parametrize(
    ("size", "spacing", "expected"),
    [
        ((512, 512, 133), (0.7, 0.7, 2.5), "SRA"),
        ((512, 60, 512), (0.7, 3.0, 0.7), "ASR"),
        ((25, 256, 256), (6.5, 0.8, 0.8), "RAS"),
        ((60, 256, 256), (1.0, 1.0, 1.0), "RAS"),
        ((197, 233, 189), (1.0, 1.0, 1.0), "SRA"),
        ((64, 64, 64), (1.0, 1.0, 1.0), "SRA"),
    ],
)
def test_the_acquisition_plane_is_inferred_from_spacing_then_size(size, spacing, expected):
    assert canonical_orientation(size, spacing) == expected
