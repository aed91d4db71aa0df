import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from monai.data import MetaTensor

from tests.fixtures.miniatures import (
    Phantom,
    Prepared,
    centre_mm,
    masks_of,
    volume_mm3,
)
from tests.fixtures.prepared_miniatures import miniature

SCAN = Phantom(values=(1, 2), axcodes="LPS", spacing=(1.5, 1.5, 3.0))
REPORT = "Findings: Fluid in the left pleural space, the T5 body is intact, the left atrium is wide. Shadow.\nImpression: Fluid."
TAGS = {
    "left atrium": "left atrium",
    "Fluid": "pleural effusion",
    "T5 body": "T5 vertebra",
    "Shadow": "a shadow",
}
SAT_NAMES = [
    "thoracic vertebrae 5 (t5)",
    "lung effusion",
    "left heart ventricle",
]  # not the atrium that was tagged


def record(*volumes: str) -> dict[str, object]:
    tags = [
        {"phrase": p, "target": t, "start": REPORT.index(p), "end": REPORT.index(p) + len(p)}
        for p, t in TAGS.items()
    ]
    study = volumes[0].rpartition("_")[0]
    images = [f"data/processed/vision-language/CT-RATE/image/{study}/{volume}.pt.zst" for volume in volumes]
    return {
        "key": study,
        "image": images,
        "modality": ["CT"] * len(volumes),
        "ref_report": REPORT,
        "tags": tags,
    }


def write_masks(path: Path, *values: int) -> Path:
    labels = SCAN.labels()[::-1, ::-1]  # left, posterior, superior
    masks = MetaTensor(torch.from_numpy(np.stack([labels == value for value in values])), affine=torch.eye(4))
    stream = io.BytesIO()
    torch.save(masks, stream)
    with pa.output_stream(str(path), compression="zstd") as file:
        file.write(stream.getvalue())
    return path


@miniature(
    "ct-rate-grounded",
    truncated={"image/train_2_a/train_2_a_1_seg.pt.zst": "train_2_a_1"},
)
def prepared(origin: Path) -> None:
    for volume in ("train_1_a_1", "train_1_a_2", "train_2_a_1", "valid_1_a_1"):
        folder = origin / "image" / volume.rpartition("_")[0]
        SCAN.write_image(folder / f"{volume}.nii.gz")
        if volume != "train_1_a_2":
            (folder / f"{volume}_seg.json").write_text(json.dumps(SAT_NAMES))
            write_masks(
                folder / f"{volume}_seg.pt.zst", 1, 2 if volume != "valid_1_a_1" else 9, 1
            )  # 9: empty
    (origin / "train.json").write_text(
        json.dumps([record("train_1_a_1", "train_1_a_2"), record("train_2_a_1")])
    )
    (origin / "test.json").write_text(json.dumps([record("valid_1_a_1"), record("valid_2_a_1")]))


def test_tags_meet_the_masks_that_bear_another_name(prepared: Prepared):
    row = prepared.rows["train_1_a_1"]
    assert [(phrase["text"].strip(), phrase["targets"]) for phrase in row["phrases"]] == [
        ("Fluid", ["pleural effusion"]),
        ("T5 body", ["T5 vertebra"]),
        ("left atrium", []),
        ("Shadow", []),
    ]
    for target, value in (("T5 vertebra", 1), ("pleural effusion", 2)):
        assert len(masks_of(row, target)) == 1
        np.testing.assert_allclose(centre_mm(row, target), SCAN.centre_mm(value), atol=1e-3)
        np.testing.assert_allclose(volume_mm3(row, target), SCAN.volume_mm3(value), rtol=1e-4)


def test_the_report_without_markers_is_the_reference_report(prepared: Prepared):
    for row in prepared.rows.values():
        assert row["report"].replace("<p>", "").replace("</p>", "") == REPORT


def test_phrases_stay_marked_where_masks_are_empty_or_were_not_made(prepared: Prepared):
    targets = {key: [p["targets"] for p in row["phrases"]] for key, row in prepared.rows.items()}
    assert targets["valid_1_a_1"] == [[], ["T5 vertebra"], [], []]
    assert targets["train_1_a_2"] == [[], [], [], []]


def test_splits_and_patients_are_those_of_ct_rate(prepared: Prepared):
    assert prepared.split_of == {"train_1_a_1": "train", "train_1_a_2": "train", "valid_1_a_1": "test"}
    assert prepared.rows["valid_1_a_1"]["patient"] == "ct-rate:valid_1"


def test_a_volume_that_was_not_exported_is_left_out_and_truncated_masks_are_named(prepared: Prepared):
    assert list(prepared.result.left_out) == ["valid_2_a_1"]
    assert "does not contain readable masks" in prepared.result.failed["train_2_a_1"]
