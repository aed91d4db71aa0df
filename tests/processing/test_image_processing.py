import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from vividmed.errors import VividMedError
from vividmed.processing.image_processing_vividmed import VividMedImageProcessor
from vividmed.processing.medical_image import MedicalImage

PROCESSOR = VividMedImageProcessor()
NOISE = np.random.default_rng(0)


def medical(array: np.ndarray, modality: str | None = None) -> MedicalImage:
    return MedicalImage(array, np.eye(4), modality, source="case.nii.gz")


def test_a_picture_fills_the_token_budget_in_two_dimensions():
    prepared = PROCESSOR.prepare(Image.fromarray(NOISE.integers(0, 255, (512, 400), dtype=np.uint8)))
    assert prepared.pixel_values.shape == (3, 1, 416, 352)
    assert prepared.plan.patch_size == (1, 16, 16)
    assert prepared.plan.pool_size == (1, 2, 2)
    assert prepared.plan.num_patch_tokens == 13 * 11


def test_a_volume_adapts_its_patch_depth():
    batch = PROCESSOR(NOISE.normal(size=(40, 64, 64)).astype(np.float32), grounding=True)
    assert batch["patch_sizes"].tolist() == [[4, 16, 16]]
    assert batch["pool_sizes"].tolist() == [[2, 2, 2]]
    assert batch["pixel_values"][0].shape == (3, 32, 192, 192)
    assert batch["grounding_values"][0].shape == batch["pixel_values"][0].shape


def test_a_batch_lists_images_in_order_and_may_be_empty():
    images = [np.zeros((20, 30), np.uint8), np.full((30, 20), 255, np.uint8)]
    batch = PROCESSOR(images)
    assert [plan.original_size for plan in batch["geometry"]] == [(1, 20, 30), (1, 30, 20)]
    assert "grounding_values" not in batch
    empty = PROCESSOR([])
    assert empty["pixel_values"] == []
    assert empty["patch_sizes"].shape == (0, 3)
    assert empty["patch_sizes"].dtype == torch.int64


def test_black_and_white_pictures_differ():
    black = PROCESSOR.prepare(Image.new("RGB", (64, 48), "black"))
    white = PROCESSOR.prepare(Image.new("RGB", (64, 48), "white"))
    assert black.grounding_values.max() == 0
    assert white.grounding_values[:, 0, 200].max() == 1
    assert (white.pixel_values - black.pixel_values).abs().max() > 3


def test_eight_bit_pictures_are_used_as_they_are():
    picture = np.full((16, 16), 51, dtype=np.uint8)
    picture[0, 0] = 102
    values = PROCESSOR.scale_intensity(medical(picture[None, None]))
    assert sorted(values.unique().tolist()) == pytest.approx([0.2, 0.4])


def test_percentiles_are_robust_to_outliers_and_to_the_padding_around_the_scan():
    array = NOISE.uniform(-100, 300, (1, 20, 64, 64)).astype(np.float32)
    array[:, :, :20] = -3024
    array[0, 0, 30, 30] = 30000
    values = PROCESSOR.scale_intensity(medical(array))
    inside = values[:, :, 20:]
    assert 0.45 < inside.mean() < 0.55
    assert values[:, :, :20].max() == 0


def test_a_few_bright_voxels_in_an_empty_volume_stay_visible():
    array = np.zeros((1, 10, 32, 32), dtype=np.int16)
    array[0, 5, 10:12, 10:12] = 700
    assert PROCESSOR.scale_intensity(medical(array)).max() == 1


def test_scaling_does_not_depend_on_the_unit():
    array = NOISE.normal(size=(1, 8, 32, 32)).astype(np.float32)
    first, second = (PROCESSOR.scale_intensity(medical(x)) for x in (array, array * 500 + 1000))
    torch.testing.assert_close(first, second, atol=1e-4, rtol=0)


def test_a_window_replaces_percentiles_except_where_the_modality_is_known_to_be_another():
    processor = VividMedImageProcessor(window=(40, 400))
    array = np.array([-1000.0, -160, 40, 240, 2000], dtype=np.float32).reshape(1, 1, 1, 5)
    for modality in ("CT", None):
        assert processor.scale_intensity(medical(array, modality)).flatten().tolist() == pytest.approx(
            [0, 0, 0.5, 1, 1]
        )
    assert processor.scale_intensity(medical(array, "MR")).flatten()[2] < 0.4


@pytest.mark.parametrize("offset", [1024, 8192])
def test_a_window_on_values_that_are_not_hu_is_refused_or_falls_back(offset):
    processor = VividMedImageProcessor(window=(40, 400))
    hounsfield = np.full((1, 8, 32, 32), -1000.0, dtype=np.float32)
    hounsfield[:, :, 8:24, 8:24] = NOISE.normal(40, 40, (1, 8, 16, 16))
    hounsfield[:, :, 8, 8:24] = 700
    assert processor.scale_intensity(medical(hounsfield, "CT"))[0, 4, 16, 16] < 1
    with pytest.raises(VividMedError, match=r"case.nii.gz: values from .* are not HU.*subtract the offset"):
        processor.scale_intensity(medical(hounsfield + offset, "CT"))
    unknown = processor.scale_intensity(medical(hounsfield + offset))
    torch.testing.assert_close(unknown, PROCESSOR.scale_intensity(medical(hounsfield + offset)))
    assert unknown.mean() < 0.9


def test_grounding_values_are_the_same_image_before_normalisation():
    prepared = PROCESSOR.prepare(NOISE.integers(0, 255, (50, 60), dtype=np.uint8))
    torch.testing.assert_close(PROCESSOR.normalize(prepared.grounding_values), prepared.pixel_values)
    assert prepared.grounding_values.min() >= 0
    assert prepared.grounding_values.max() <= 1


def test_sixteen_bit_and_big_endian_arrays_are_understood():
    native = NOISE.integers(0, 60000, (64, 64)).astype(np.uint16)
    first, second = (PROCESSOR.prepare(x).pixel_values for x in (native, native.astype(">u2")))
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_voxels_are_refused_with_the_file(bad):
    array = NOISE.normal(size=(1, 4, 8, 8)).astype(np.float32)
    array[0, 1, 2, 3] = bad
    with pytest.raises(VividMedError, match=r"case.nii.gz: contains 1 NaN or infinite values"):
        PROCESSOR.prepare(medical(array))


@pytest.mark.parametrize("dtype", [np.float32, np.int16, np.uint16])
def test_constant_images_are_refused_with_the_file(dtype):
    with pytest.raises(VividMedError, match=r"case\.nii\.gz: every voxel has the value 7"):
        PROCESSOR.prepare(medical(np.full((1, 4, 8, 8), 7, dtype=dtype)))


def test_depth_jitter_comes_from_the_given_generator():
    volume = NOISE.normal(size=(45, 32, 32)).astype(np.float32)

    def depths(seed):
        generator = np.random.default_rng(seed)
        return [PROCESSOR.prepare(volume, generator=generator).plan.patch_size[0] for _ in range(8)]

    assert depths(3) == depths(3)
    assert len({depth for seed in range(4) for depth in depths(seed)}) > 1


def test_a_plan_from_the_shape_is_the_plan_of_the_image():
    volume = nib.Nifti1Image(
        NOISE.normal(size=(40, 50, 30)).astype(np.float32), np.diag([2.0, 1.0, 1.0, 1.0])
    )
    prepared = PROCESSOR.prepare(volume)
    assert PROCESSOR.plan((30, 50, 40), volume.affine) == prepared.plan
    assert prepared.plan.axes != (0, 1, 2)


def test_settings_survive_saving_exactly(tmp_path):
    processor = VividMedImageProcessor(
        patch_size=(8, 14, 14),
        pool_size=(2, 2, 2),
        max_image_tokens=64,
        max_slice_tokens=2,
        percentiles=(1.0, 99.0),
        window=(40.0, 400.0),
        image_mean=(0.1, 0.2, 0.3),
        image_std=(0.4, 0.5, 0.6),
    )
    processor.save_pretrained(tmp_path)
    loaded = VividMedImageProcessor.from_pretrained(tmp_path)
    assert loaded.to_dict() == processor.to_dict()
    picture = NOISE.integers(0, 255, (50, 60), dtype=np.uint8)
    assert (loaded.prepare(picture).pixel_values == processor.prepare(picture).pixel_values).all()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("patch_size", (12, 16, 16)),
        ("patch_size", (16, 16)),
        ("pool_size", (2, 2, 0)),
        ("max_image_tokens", 3),
        ("max_slice_tokens", 0),
        ("percentiles", (99, 1)),
        ("window", (40, 0)),
        ("image_std", (1, 0, 1)),
        ("image_mean", (1, 2)),
        ("image_mean", 3),
        ("image_mean", "abc"),
        ("patch_size", None),
        ("patch_size", (16, 16, 10**9)),
        ("pool_size", (2, 2, "2")),
        ("max_image_tokens", "many"),
        ("max_image_tokens", 10**30),
        ("max_slice_tokens", True),
        ("percentiles", (1,)),
        ("percentiles", (0, float("nan"))),
        ("window", (40,)),
    ],
)
def test_impossible_settings_are_refused_by_name(setting, value):
    with pytest.raises(VividMedError, match=f"image processor: {setting}="):
        VividMedImageProcessor(**{setting: value})
