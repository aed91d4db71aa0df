import copy
import gzip
from io import BytesIO

import nibabel as nib
import numpy as np
import pytest
from datasets import Dataset, load_dataset
from PIL import Image

from vividmed.data.masks import pack_mask, unpack_mask
from vividmed.data.schema import SCHEMAS, schema, validate_row
from vividmed.errors import VividMedError

MASK = np.zeros((1, 6, 8), dtype=bool)
MASK[0, 2:4, 3:7] = True


def picture() -> Image.Image:
    return Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8))


def png() -> dict:
    buffer = BytesIO()
    picture().save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": "a.png"}


def row(kind: str) -> dict:
    common = {
        "id": "r1",
        "patient": "p1",
        "images": [picture()],
        "volumes": [],
        "modality": "CT",
        "source": "here",
        "licence": "MIT",
    }
    located = {
        "masks": [pack_mask("liver", MASK)],
        "boxes": [{"target": "liver", "box": [0, 2, 3, 1, 4, 7]}],
        "incomplete": [],
    }
    own = {
        "vision_language": {
            "plane": None,
            "messages": [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "CT."}],
            "kind": "modality",
        },
        "localization": {"targets": ["liver"], "absent": ["spleen"], **located},
        "grounded_report": {
            "report": "The <p>liver</p> and the <p>liver</p> again.",
            "phrases": [
                {"text": "liver", "start": 4, "end": 9, "targets": ["liver"]},
                {"text": "liver", "start": 18, "end": 23, "targets": ["liver"]},
            ],
            **located,
        },
    }
    return {**common, **own[kind]}


@pytest.mark.parametrize("kind", SCHEMAS)
def test_a_good_row_passes(kind):
    validate_row(kind, row(kind))


def test_an_unknown_kind_is_refused():
    with pytest.raises(VividMedError, match=r"'vqa'.*vision_language, localization, grounded_report"):
        schema("vqa")


@pytest.mark.parametrize(
    ("kind", "change", "match"),
    [
        ("vision_language", {"licence": ""}, "'licence' is empty"),
        ("vision_language", {"images": []}, "both empty"),
        ("vision_language", {"messages": []}, "'messages' is empty"),
        (
            "vision_language",
            {"messages": [{"role": "system", "content": "x"}]},
            "'messages', turn 0 has the role 'system'",
        ),
        (
            "vision_language",
            {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": " "}]},
            "'messages', turn 1 is empty",
        ),
        ("localization", {"absent": ["liver"]}, "'absent' repeats 'liver'"),
        ("localization", {"incomplete": ["spleen"]}, "'incomplete' names 'spleen' without a mask or a box"),
        ("localization", {"targets": ["liver", "heart"]}, "'targets' names 'heart' without"),
        ("localization", {"targets": []}, "contains 'liver', which is not in 'targets'"),
        (
            "localization",
            {"boxes": [{"target": "liver", "box": [0, 2, 3, 2, 4, 7]}]},
            "'boxes', 'liver'.*z range",
        ),
        ("localization", {"masks": [pack_mask("liver", np.ones((1, 9, 2)))]}, "'masks', 'liver'.*y range"),
        ("localization", {"images": [picture(), picture()]}, "single image"),
        ("grounded_report", {"report": "The <p>liver</p> again."}, "marks 1 phrases, but 'phrases' lists 2"),
        ("grounded_report", {"report": "A <p>liver</p> and the <p>liver</p>."}, "'phrases', number 0"),
        ("grounded_report", {"report": "The <p>liver</p> and the <p>heart</p>."}, "'phrases', number 1"),
        ("grounded_report", {"masks": [], "boxes": []}, "number 0 names 'liver' without"),
    ],
)
def test_a_fault_names_row_and_field(kind, change, match):
    with pytest.raises(VividMedError, match=f"row r1: .*{match}") as caught:
        validate_row(kind, {**row(kind), **change})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", SCHEMAS)
def test_every_missing_field_is_named(kind):
    for name in SCHEMAS[kind]:
        bad = copy.copy(row(kind))
        del bad[name]
        with pytest.raises(VividMedError, match=f"field '{name}' is missing"):
            validate_row(kind, bad)


@pytest.mark.parametrize("kind", SCHEMAS)
def test_rows_load_with_plain_load_dataset_and_carry_their_images(kind, tmp_path):
    values = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    affine = np.diag([-2.0, -3.0, 4.0, 1.0])
    volume = gzip.compress(nib.Nifti1Image(values, affine).to_bytes())
    written = {**row(kind), "images": [png()], "volumes": []}
    other = {
        **row(kind),
        "id": "r2",
        "images": [],
        "volumes": [{"bytes": volume, "path": "b.nii.gz"}],
    }
    if kind != "vision_language":
        other |= {"masks": [pack_mask("liver", np.ones((4, 3, 2)))], "boxes": []}
    Dataset.from_list([written, other], features=SCHEMAS[kind]).to_parquet(tmp_path / "train.parquet")

    loaded = load_dataset("parquet", data_dir=str(tmp_path), split="train", cache_dir=str(tmp_path / "cache"))

    assert loaded.features == SCHEMAS[kind]
    np.testing.assert_array_equal(np.asarray(loaded[0]["images"][0]), np.asarray(picture()))
    nifti = loaded[1]["volumes"][0]
    np.testing.assert_array_equal(np.asanyarray(nifti.dataobj), values)
    np.testing.assert_allclose(nifti.affine, affine)
    for record in loaded:
        validate_row(kind, record)
    if kind != "vision_language":
        np.testing.assert_array_equal(unpack_mask(loaded[0]["masks"][0], MASK.shape), MASK)
