from pathlib import Path

import pytest

from tests.fixtures.miniatures import Prepared, picture, prepare_miniature, write_picture
from tests.fixtures.prepared_miniatures import miniature
from vividmed.data.adapters.vqa_med_2019 import _PARTS as PARTS
from vividmed.errors import VividMedError

LINES = {
    "train": [
        'synpic1|what is shown in the "lung"?|pneumonia',
        "synpic1|which plane is shown?|axial",
        "synpic2|is this a t1 image?|no",
        "synpic3|what is this?|",
        "synpic6|what is this?|a cyst",
    ],
    "validation": ["synpic4|what organ system is shown?|skull and contents"],
    "test": ["synpic5|modality|what modality is it?|xr - plain film", ""],
}


def write_part(origin: Path, part: tuple[str, str, int, str], lines: list[str]) -> None:
    table, folder, _, _ = part
    (origin / table).parent.mkdir(parents=True, exist_ok=True)
    (origin / table).write_text("\r\n".join(lines))
    for name in {line.partition("|")[0] for line in lines if line}:
        write_picture(origin / folder / f"{name}.jpg", picture())


@miniature(
    "vqa-med-2019",
    truncated={f"{PARTS[0][1]}/synpic6.jpg": "synpic6"},
)
def prepared(origin: Path) -> None:
    for part in PARTS:
        write_part(origin, part, LINES[part[3]])


def test_questions_of_every_image_are_kept_the_last_one_too(prepared: Prepared):
    asked = {key: [message["content"] for message in row["messages"]] for key, row in prepared.rows.items()}
    assert asked == {
        "synpic1": ['what is shown in the "lung"?', "pneumonia", "which plane is shown?", "axial"],
        "synpic2": ["is this a t1 image?", "no"],
        "synpic4": ["what organ system is shown?", "skull and contents"],
        "synpic5": ["what modality is it?", "xr - plain film"],
    }


def test_parts_are_the_splits(prepared: Prepared):
    assert prepared.split_of == {
        "synpic1": "train",
        "synpic2": "train",
        "synpic4": "validation",
        "synpic5": "test",
    }


def test_an_image_without_answers_is_left_out(prepared: Prepared):
    assert list(prepared.result.left_out) == ["synpic3"]


def test_a_line_that_lacks_a_field_is_named(tmp_path: Path):
    write_part(tmp_path, PARTS[0], ["synpic1|what is this?|a cyst", "synpic2|and this?"])
    with pytest.raises(VividMedError, match="line 2 has 2 fields instead of 3"):
        prepare_miniature("vqa-med-2019", tmp_path, tmp_path / "out")
