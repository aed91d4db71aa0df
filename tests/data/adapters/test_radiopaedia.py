import json
from pathlib import Path

import numpy as np

from tests.fixtures.miniatures import Prepared, image_of, picture, write_picture
from tests.fixtures.prepared_miniatures import miniature

SLICES = np.stack([picture((36, 44), seed) for seed in range(3)])
RECORDS = {
    "train": [
        {
            "image_path": "/home/rp3d/raw_images/100/200/300",
            "image_modality": "CT",
            "plane_projection": "Axial",
            "finding": "A hypodense lesion\n in the liver.",
            "qa_list": [{"question": "Where is it?", "answer": "Liver"}, {"question": "Why?", "answer": ""}],
        },
        {
            "image_path": ["raw_images/101/200/300", "raw_images/101/200/301"],
            "image_modality": ["CT", "MRI"],
            "plane_projection": ["Axial", "Perspective"],
            "finding": "Two series.",
            "qa_list": [],
        },
        {
            "image_path": "raw_images/102/200/300",
            "finding": "",
            "qa_list": [{"question": "a?", "answer": "b"}],
        },
    ],
    "test": [
        {
            "image_path": "raw_images/103/200/300",
            "image_modality": "X-ray",
            "plane_projection": None,
            "finding": "Clear.",
        },
        {
            "image_path": "raw_images/104/200/300",
            "image_modality": "X-ray",
            "plane_projection": "AP",
            "finding": "Clear.",
        },
    ],
}


@miniature(
    "radiopaedia",
    truncated={"RP3D-Image/raw_images/104/200/300/1.jpeg": "104/200/300"},
)
def prepared(origin: Path) -> None:
    images = origin / "RP3D-Image/raw_images"
    for name in ("100/200/300", "101/200/300", "101/200/301", "102/200/300"):
        write_series(images / name, SLICES)
    write_series(images / "103/200/300", SLICES[:1])
    write_series(images / "104/200/300", SLICES[:1])
    folder = origin / "RadFM_data_csv/data_csv"
    folder.mkdir(parents=True)
    for split, records in RECORDS.items():
        (folder / f"radiology_{split}.json").write_text(json.dumps(records))


def write_series(folder: Path, slices: np.ndarray) -> None:
    for number, array in enumerate(slices, 1):
        write_picture(folder / f"{number}.jpeg", array)


def test_a_series_is_a_volume_and_a_single_slice_a_picture(prepared: Prepared):
    array, _ = image_of(prepared.rows["100/200/300"])
    assert array.shape == SLICES.shape
    assert np.abs(array.astype(int) - SLICES).mean() < 8  # JPEG
    assert prepared.rows["103/200/300"]["images"][0].size == (44, 36)


def test_findings_and_questions_with_answers_are_the_turns(prepared: Prepared):
    row = prepared.rows["100/200/300"]
    assert row["kind"] == "report+vqa"
    assert [message["content"] for message in row["messages"]][1:] == [
        "Findings: A hypodense lesion in the liver.",
        "Where is it?",
        "Liver",
    ]


def test_modality_and_plane_are_those_of_the_record(prepared: Prepared):
    assert (prepared.rows["100/200/300"]["modality"], prepared.rows["100/200/300"]["plane"]) == (
        "CT",
        "axial",
    )
    both = prepared.rows["101/200/300+101/200/301"]
    assert (both["modality"], both["plane"], len(both["volumes"])) == ("CT, MRI", None, 2)


def test_splits_are_the_files_and_patients_the_cases(prepared: Prepared):
    assert prepared.split_of == {
        "100/200/300": "train",
        "101/200/300+101/200/301": "train",
        "103/200/300": "test",
    }
    assert prepared.rows["100/200/300"]["patient"] == "radiopaedia:100"


def test_records_without_findings_are_left_out(prepared: Prepared):
    assert list(prepared.result.left_out) == ["102/200/300"]
