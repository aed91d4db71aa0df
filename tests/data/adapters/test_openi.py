from pathlib import Path

import numpy as np

from tests.fixtures.miniatures import (
    Prepared,
    picture,
    write_picture,
    write_table,
)
from tests.fixtures.prepared_miniatures import miniature

REPORTS = {  # uid: findings, impression; 3 and 5 do not exist
    "1": ("Heart size is normal. The XXXX are clear.", "Normal chest."),
    "2": ("Large right effusion.", "Right effusion. XXXX XXXX."),
    "4": ("", "No acute findings."),
    "6": ("XXXX.", "Stable."),
    "7": ("Clear lungs.", "Normal."),
    "8": ("Clear lungs.", "Normal."),
}
IMAGES = {
    "1_IM-0001-4001.dcm.png": ("1", "Frontal"),
    "1_IM-0001-3001.dcm.png": ("1", "Lateral"),
    "2_IM-0652-1001.dcm.png": ("2", "Frontal"),
    "4_IM-2050-1001.dcm.png": ("4", "Frontal"),
    "6_IM-2192-1001.dcm.png": ("6", "Frontal"),
    "7_IM-2263-1001.dcm.png": ("7", "Frontal"),
}


@miniature(
    "openi",
    truncated={"images/images_normalized/7_IM-2263-1001.dcm.png": "7"},
)
def prepared(origin: Path) -> None:
    for seed, name in enumerate(IMAGES):
        write_picture(origin / "images/images_normalized" / name, picture(seed=seed))
    reports = [
        {"uid": uid, "MeSH": "normal", "Problems": "normal", "findings": text, "impression": end}
        for uid, (text, end) in REPORTS.items()
    ]
    write_table(origin / "indiana_reports.csv", reports)
    rows = [{"uid": uid, "filename": name, "projection": view} for name, (uid, view) in IMAGES.items()]
    write_table(origin / "indiana_projections.csv", rows)


def test_reports_meet_the_images_of_their_own_uid(prepared: Prepared):
    assert set(prepared.rows) == {"1", "2"}
    for uid, seeds in {"1": (0, 1), "2": (2,)}.items():
        shown = [np.asarray(image) for image in prepared.rows[uid]["images"]]
        for array, seed in zip(shown, seeds, strict=True):
            np.testing.assert_array_equal(array, picture(seed=seed))


def test_sentences_with_removed_words_are_dropped(prepared: Prepared):
    texts = {uid: row["messages"][1]["content"] for uid, row in prepared.rows.items()}
    assert texts == {
        "1": "Findings: Heart size is normal.\nImpression: Normal chest.",
        "2": "Findings: Large right effusion.\nImpression: Right effusion.",
    }


def test_a_row_with_one_view_names_it(prepared: Prepared):
    assert (prepared.rows["1"]["plane"], prepared.rows["2"]["plane"]) == (None, "frontal")
    assert prepared.rows["2"]["modality"] == "X-ray"


def test_the_split_follows_the_patient(prepared: Prepared):
    assert set(prepared.split_of.values()) <= {"train", "validation", "test"}
    assert prepared.rows["1"]["patient"] == "openi:1"


def test_reports_without_text_or_image_are_left_out(prepared: Prepared):
    assert set(prepared.result.left_out) == {"4", "6", "8"}
