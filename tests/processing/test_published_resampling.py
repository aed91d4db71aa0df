"""Published pixels: our resizing against MONAI's own transforms, which the published code used."""

import numpy as np
import pytest
import torch

from vividmed import VividMedError, VividMedImageProcessor
from vividmed.data.batches.examples import read_images
from vividmed.data.sample import load_sample
from vividmed.processing.medical_image import MedicalImage

monai = pytest.importorskip("monai.transforms", reason="MONAI is not installed")

# Original size, resized size and stride of a volume that shrinks, one that grows in the plane, 2D images of both kinds,
# and one that keeps its size.
SIZES = [
    ((13, 60, 50), (8, 33, 27), (4, 16, 16)),
    ((5, 20, 24), (4, 37, 45), (1, 32, 32)),
    ((1, 97, 81), (1, 41, 34), (1, 32, 32)),
    ((1, 20, 30), (1, 44, 66), (1, 32, 32)),
    ((3, 30, 40), (3, 30, 40), (1, 16, 16)),
]


@pytest.fixture(params=SIZES, ids=str)
def plan_and_image(request):
    size, resized, stride = request.param
    processor = VividMedImageProcessor()
    plan = processor.plan(size)
    missing = [-n % s for n, s in zip(resized, stride, strict=True)]
    padding = tuple((n // 2, n - n // 2) for n in missing)
    plan = type(plan)(**{**vars(plan), "resized_size": resized, "padding": padding})
    image = torch.rand(1, *size, generator=torch.Generator().manual_seed(0))
    return plan, image, resized, stride


def test_vision_tower_sees_what_monais_resize_gives(plan_and_image):
    plan, image, resized, stride = plan_and_image
    published = monai.Compose(
        [monai.Resize(resized, mode="trilinear", anti_aliasing=True), monai.DivisiblePad(stride)]
    )(image)
    ours = plan.apply_published(image, grounding=False)
    assert (ours - torch.as_tensor(published)).abs().max() < 1e-5


def test_segmenters_see_what_monais_lazy_resize_and_padding_give(plan_and_image):
    plan, image, resized, stride = plan_and_image
    published = monai.Compose(
        [monai.ResizeD("image", resized, mode="trilinear"), monai.DivisiblePadD("image", stride)],
        lazy=True,
        overrides={"image": {"padding_mode": "zeros"}},
    )({"image": image})["image"]
    ours = plan.apply_published(image, grounding=True)
    assert (ours - torch.as_tensor(published)).abs().max() < 1e-5


def test_the_processor_takes_the_setting_and_keeps_it(tmp_path):
    image = MedicalImage(np.random.default_rng(0).random((1, 1, 700, 600)).astype(np.float32), np.eye(4))
    default, published = VividMedImageProcessor(), VividMedImageProcessor(resampling="published")
    assert default.resampling == "antialias"
    a, b = default.prepare(image), published.prepare(image)
    assert a.plan == b.plan
    assert (a.pixel_values - b.pixel_values).abs().max() > 1e-3
    assert torch.equal(default.normalize(a.grounding_values), a.pixel_values)
    assert not torch.equal(published.normalize(b.grounding_values), b.pixel_values)
    published.save_pretrained(tmp_path)
    assert VividMedImageProcessor.from_pretrained(tmp_path).resampling == "published"
    with pytest.raises(VividMedError, match="resampling=bicubic must be one of"):
        VividMedImageProcessor(resampling="bicubic")


@pytest.fixture(scope="module")
def real_images():
    """A radiograph, slices and volumes of CT and MR of the embedded sample, as read from its rows."""
    rows = load_sample("vision_language", "test")
    chosen = {}
    for index, row in enumerate(rows.select_columns(["modality", "plane", "patient"])):
        chosen.setdefault((row["modality"], row["plane"] is None), index)
    return [read_images(rows[index])[0] for index in chosen.values()]


def test_real_images_and_volumes_become_what_monais_transforms_make_of_them(real_images):
    processor = VividMedImageProcessor(resampling="published")
    assert {image.size[0] > 1 for image in real_images} == {True, False}
    for image in real_images:
        prepared = processor.prepare(image)
        plan = prepared.plan
        scaled = processor.scale_intensity(image).permute(0, *(axis + 1 for axis in plan.axes))
        oriented = scaled.flip([axis + 1 for axis in range(3) if plan.flips[axis]])
        stride = tuple(plan.model_size)
        smoothed = monai.Compose(
            [
                monai.Resize(plan.resized_size, mode="trilinear", anti_aliasing=True),
                monai.SpatialPad(stride),
            ]
        )(oriented)
        lazy = monai.Compose(
            [
                monai.ResizeD("image", plan.resized_size, mode="trilinear"),
                monai.SpatialPadD("image", stride),
            ],
            lazy=True,
            overrides={"image": {"padding_mode": "zeros"}},
        )({"image": oriented})["image"]
        seen, grounded = processor.denormalize(prepared.pixel_values), prepared.grounding_values
        assert (seen - torch.as_tensor(smoothed)).abs().max() < 1e-5
        assert (grounded - torch.as_tensor(lazy)).abs().max() < 1e-5
