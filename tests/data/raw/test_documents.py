import json
from pathlib import Path

import pytest

from vividmed.data.raw.documents import as_line, read_json, read_records, read_text
from vividmed.errors import VividMedError


def test_a_byte_order_mark_is_not_text(tmp_path: Path):
    (tmp_path / "report.txt").write_bytes("\ufeffBefund: unauffällig".encode())
    assert read_text(tmp_path / "report.txt") == "Befund: unauffällig"


def test_records_come_from_lists_and_from_lines(tmp_path: Path):
    records = [{"image": "a", "caption": "x\u2028y"}, {"image": "b", "caption": ""}]
    (tmp_path / "list.json").write_text(json.dumps(records))
    (tmp_path / "lines.jsonl").write_text(
        "".join(f"{json.dumps(record, ensure_ascii=False)}\n\n" for record in records), encoding="utf-8"
    )
    for name in ("list.json", "lines.jsonl"):
        assert read_records(tmp_path / name, "image", "caption") == records


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.json", None, "no such file"),
        ("latin.json", '["ä"]'.encode("latin-1"), "line 1 is not UTF-8"),
        ("cut.json", b'[{"image": "a"}, {"ima', "not readable as JSON"),
        ("dict.json", b'{"image": "a"}', "does not contain a list of records"),
        ("names.json", b'["image"]', "record 0 is not an object"),
        ("lacks.json", b'[{"image": "a"}, {"caption": "b"}]', "record 1 lacks the field 'image'"),
        ("cut.jsonl", b'{"image": "a"}\n{"image"\n', "line 2: not readable as JSON"),
    ],
)
def test_a_malformed_file_is_named_with_its_problem(
    tmp_path: Path, name: str, content: bytes | None, message: str
):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(VividMedError, match=f"{name}.*{message}"):
        read_records(tmp_path / name, "image")


def test_json_of_any_form_is_read(tmp_path: Path):
    (tmp_path / "splits.json").write_text('{"train": [1]}')
    assert read_json(tmp_path / "splits.json") == {"train": [1]}


@pytest.mark.parametrize(("value", "line"), [(None, ""), (3, "3"), (" a\n\tb ", "a b"), ("", "")])
def test_a_field_becomes_one_line(value: object, line: str):
    assert as_line(value) == line
