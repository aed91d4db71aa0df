import json
from pathlib import Path

from tests.fixtures.miniatures import (
    Prepared,
    picture,
    write_picture,
    write_table,
)
from tests.fixtures.prepared_miniatures import miniature
from vividmed.data.adapters.mimic_cxr import JPG

REGIONS = {
    "right lung": (2, 4, 18, 40),
    "left lung": (22, 4, 48, 40),  # beyond the right edge
    "cardiac silhouette": (14, 20, 30, 38),
    "svc": (16, 6, 19, 20),
    "left hilar structures": (22, 15, 28, 22),
    "right upper lung zone": (2, 4, 18, 15),
}
IMAGES = {  # dicom: subject, study, split, regions
    "aa-1": ("10000001", "50000001", "train", REGIONS),
    "bb-2": ("10000001", "50000002", "train", {"left hilar structures": (22, 15, 28, 22)}),
    "cc-3": ("11000002", "50000003", "validate", {"spine": (17, 0, 23, 48)}),
    "dd-4": ("12000003", "50000004", "test", {"spine": (17, 0, 23, 48)}),
    "ee-5": ("12000004", "50000005", "test", {}),
}


def scene_graph(
    dicom: str, subject: str, study: str, regions: dict[str, tuple[int, ...]]
) -> dict[str, object]:
    corners = ("original_x1", "original_y1", "original_x2", "original_y2")
    objects = [
        {"object_id": f"{dicom}_{name}", "bbox_name": name, "x1": 0, "y1": 0, "x2": 9, "y2": 9}
        | dict(zip(corners, box, strict=True))
        for name, box in regions.items()
    ]
    graph = {"image_id": dicom, "viewpoint": "AP", "patient_id": int(subject), "study_id": int(study)}
    return graph | {"objects": objects, "attributes": [], "relationships": []}


@miniature(
    "chest-imagenome",
    truncated={
        "MIMIC-CXR-JPG/files/p12/p12000003/s50000004/dd-4.jpg": "dd-4",
        "chest-imagenome/silver_dataset/scene_graph/ee-5_SceneGraph.json": "ee-5",
    },
)
def prepared(origin: Path) -> None:
    graphs = origin / "chest-imagenome/silver_dataset/scene_graph"
    graphs.mkdir(parents=True)
    for dicom, (subject, study, _, regions) in IMAGES.items():
        path = origin / JPG / f"files/p{subject[:2]}/p{subject}/s{study}/{dicom}.jpg"
        write_picture(path, picture((48, 40)))
        (graphs / f"{dicom}_SceneGraph.json").write_text(
            json.dumps(scene_graph(dicom, subject, study, regions))
        )
    rows = [{"dicom_id": d, "study_id": s, "subject_id": p, "split": t} for d, (p, s, t, _) in IMAGES.items()]
    write_table(origin / JPG / "mimic-cxr-2.0.0-split.csv", rows)


def test_regions_are_boxes_in_rows_and_columns_of_the_original_image(prepared: Prepared):
    row = prepared.rows["aa-1"]
    assert {entry["target"]: entry["box"] for entry in row["boxes"]} == {
        "right lung": [0, 4, 2, 1, 40, 18],
        "left lung": [0, 4, 22, 1, 40, 40],
        "heart": [0, 20, 14, 1, 38, 30],
        "superior vena cava": [0, 6, 16, 1, 20, 19],
    }
    assert row["absent"] == []


def test_splits_and_patients_are_those_of_mimic_cxr(prepared: Prepared):
    assert prepared.split_of == {"aa-1": "train", "cc-3": "validation"}
    assert prepared.rows["aa-1"]["patient"] == "mimic-cxr:p10000001"


def test_graphs_without_a_known_region_are_left_out(
    prepared: Prepared,
):
    assert set(prepared.result.left_out) == {"bb-2"}
