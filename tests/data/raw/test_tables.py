from pathlib import Path

import pytest

from vividmed.data.raw.tables import column, finite, number, read_table
from vividmed.errors import VividMedError

SOUND = 'id,text,split\n1,"Heart, lungs",train\n\n2,,test'


def _table(folder: Path, content: str | bytes) -> Path:
    path = folder / "reports.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("content", [SOUND, f"{SOUND}\r\n", SOUND.replace("\n", "\r\n"), f"\ufeff{SOUND}"])
def test_quotes_blank_lines_line_ends_and_a_byte_order_mark_change_nothing(tmp_path: Path, content: str):
    rows = read_table(_table(tmp_path, content), "id", "split")
    assert rows == [
        {"id": "1", "text": "Heart, lungs", "split": "train"},
        {"id": "2", "text": "", "split": "test"},
    ]
    assert [row.where.rpartition(": ")[2] for row in rows] == ["line 2", "line 4"]


def test_a_row_is_named_by_its_first_line_after_values_with_line_breaks(tmp_path: Path):
    path = _table(tmp_path, 'id,text\n1,"a\nb\nc"\n2,d\n3,e,f\n')
    with pytest.raises(VividMedError, match=r"reports\.csv: line 6 has 3 fields but the header has 2"):
        read_table(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,text,split\n1,Heart, lungs,train\n", r"line 2 has 4 fields but the header has 3; put quotes"),
        ("id,text,split\n1,a,train,\n", r"line 2 has 4 fields"),
        ("id,text,split\n1,a,train\n2,a,test\n3,b", r"line 4 has 2 fields but the header has 3; .* cut off"),
        ('id,text,split\n1,a,train\n2,"a, b', r"line 3 is not a readable row \(unexpected end of data\)"),
        ('id,text,split\n1,"a"b,train\n', r"line 2 is not a readable row"),
        ("id,text,split,id\n1,a,train,2\n", r"line 1 names the column 'id' twice"),
        ("id, text ,split,text\n1,a,train,2\n", r"line 1 names the column 'text' twice"),
        ("id,text,split\n1,a\0b,train\n", r"line 2 contains a NUL byte"),
        (SOUND.encode("utf-16"), r"line 1 is not UTF-8"),
        (SOUND.encode("utf-16-le"), r"line 1 contains a NUL byte"),
        ("id,text,split\n1,a,train\n2,Ödem,test\n".encode("latin-1"), r"line 3 is not UTF-8"),
        ("id;text;split\n1;a;train\n", r"fields are separated by semicolons, not by commas; save"),
        ("id\ttext\tsplit\n1\ta\ttrain\n", r"fields are separated by tabs, not by commas; save"),
        ("name,split\n1,train\n", r"column 'id' is missing; the table has 'name', 'split'"),
        ("", r"the table is empty"),
        ("\n\n", r"the table is empty"),
    ],
)
def test_a_malformed_table_is_refused_with_its_line(tmp_path: Path, content: str | bytes, message: str):
    with pytest.raises(VividMedError, match=rf"reports\.csv: {message}") as caught:
        read_table(_table(tmp_path, content), "id", "split")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["missing.csv", "a" * 300 + ".csv", "nul\0.csv", "folder.csv"])
def test_a_path_that_leads_to_no_file_is_refused(tmp_path: Path, name: str):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(VividMedError, match=r"no such file|cannot be read"):
        read_table(tmp_path / name)


def test_an_index_column_without_a_name_is_ignored(tmp_path: Path):
    assert read_table(_table(tmp_path, ",id\n0,a\n1,b\n")) == [{"id": "a"}, {"id": "b"}]


def test_a_key_with_two_values_is_named(tmp_path: Path):
    rows = read_table(_table(tmp_path, "id,sex\n1,F\n1,F\n1,M\n"))
    assert column(rows[:2], "id", "sex") == {"1": "F"}
    with pytest.raises(VividMedError, match=r"line 4: id '1' already has another sex"):
        column(rows, "id", "sex")


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999", "", "x", "1,5"])
def test_a_field_that_is_no_finite_number_is_named(tmp_path: Path, value: str):
    (row,) = read_table(_table(tmp_path, f'id,x\n1,"{value}"\n'))
    with pytest.raises(VividMedError, match=r"reports\.csv: line 2: column 'x' contains"):
        number(row, "x")


@pytest.mark.parametrize("value", [None, True, [1], {}, 10**400, float("nan")])
def test_only_numbers_are_finite(value: object):
    with pytest.raises(VividMedError, match="here contains"):
        finite(value, "here")
