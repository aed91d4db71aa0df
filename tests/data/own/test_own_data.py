"""One's own data from the command line: preview, refused rows, splits, direct use, adapters in files."""

import csv
import pickle
from pathlib import Path

import pytest
from datasets import load_dataset

from tests.fixtures.miniatures import Phantom, write_table
from vividmed.cli.main import main
from vividmed.data.adapters import base, get_adapter
from vividmed.data.loading import load_prepared
from vividmed.data.own.adapter_files import load_adapter_file
from vividmed.data.own.direct import prepared_location
from vividmed.data.own.listing import check_name, parse_ratios
from vividmed.data.raw.splits import assign_splits, divide_patients
from vividmed.data.schema import prepared_schema
from vividmed.data.terms import read_terms
from vividmed.errors import VividMedError
from vividmed.hub.publish import publish_dataset


def table_rows(names: list[str]) -> list[dict[str, str]]:
    return [
        {"Image": name, "Question": "Is it normal?", "Answer": "yes", "Patient ID": f"p{n}"}
        for n, name in enumerate(names)
    ]


def test_a_table_is_previewed_prepared_and_its_refused_rows_named(images: Path, tmp_path: Path, capsys):
    names = [
        "a.png",
        "b.png",
        "c.jpg",
        "ct.nii.gz",
        "series",
        "cr.dcm",
        "p1/x.png",
        "broken.png",
        "empty.png",
        "none.png",
    ]
    table, out = write_table(tmp_path / "My Table.csv", table_rows(names)), tmp_path / "out"
    arguments = ["prepare", "table", str(table), "--images", str(images)]
    assert main([*arguments, "--dry-run"]) == 1
    preview = capsys.readouterr().out
    assert "row 2: a.png\n  Q: Is it normal?\n  A: yes" in preview
    assert preview.count("  Q: ") == 3
    assert "train : validation : test = 80 : 10 : 10" in preview
    assert not out.exists()
    assert main([*arguments, "--output", str(out)]) == 1
    printed = capsys.readouterr().out
    with (out / "refused_rows.csv").open() as stream:
        refused = {int(row["row"]): (row["column"], row["reason"]) for row in csv.DictReader(stream)}
    assert set(refused) == {9, 10, 11}
    assert all(column == "Image" and reason for column, reason in refused.values())
    assert all(
        f"row {number}, column 'Image': {reason}" in printed for number, (_, reason) in refused.items()
    )
    loaded = load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    assert set(loaded) == {"train", "validation", "test"}
    assert all(rows.features == prepared_schema("vision_language") for rows in loaded.values())
    rows = {row["id"]: row for split in loaded.values() for row in split}
    assert set(rows) == {f"my-table:{name}" for name in ("a", "b", "c", "ct", "series", "cr", "x")}
    assert rows["my-table:ct"]["volumes"]
    assert read_terms(out).access == "internal"
    for audience in ({"public": True}, {"gated": True}):
        with pytest.raises(VividMedError, match="access internal"):
            publish_dataset(out, "someone/t", **audience)
    assert read_terms(out).access == "internal"


@pytest.mark.parametrize(
    ("number", "expected"),
    [(1, (1, 0, 0)), (2, (1, 0, 1)), (3, (1, 1, 1)), (10, (8, 1, 1)), (30, (24, 3, 3))],
)
def test_patients_are_divided_in_the_stated_ratios_and_no_split_is_empty(
    number: int, expected: tuple[int, int, int]
):
    patients = [f"p{n}" for n in range(number)]
    ratios = parse_ratios("0.8,0.1,0.1")
    divided = divide_patients(patients, ratios)
    assert tuple(list(divided.values()).count(split) for split in ratios) == expected
    assert divide_patients(reversed(patients), ratios) == divided
    assert assign_splits([(patient, None) for patient in patients * 2], ratios=ratios) == divided


@pytest.mark.parametrize(
    ("text", "shares"),
    [("80:10:10", (0.8, 0.1, 0.1)), ("0.9 0.1", (0.9, 0, 0.1)), ("70%,15%,15%", (0.7, 0.15, 0.15))],
)
def test_ratios_are_read(text: str, shares: tuple[float, ...]):
    assert tuple(parse_ratios(text).values()) == pytest.approx(shares)


@pytest.mark.parametrize("text", ["", "1", "0.8,0.1", "a,b", "0,0.5,0.5", "-1,1,1", "1,2,3,4", "nan,1,1"])
def test_ratios_that_make_no_sense_are_refused(text: str):
    with pytest.raises(VividMedError, match="--split-ratios"):
        parse_ratios(text)


def test_names_of_published_data_sets_are_not_taken():
    assert check_name(None, "slake") == "own-slake"
    with pytest.raises(VividMedError, match="name of a published data set"):
        check_name("slake", "x")
    with pytest.raises(VividMedError, match="such as 'my-set'"):
        check_name("My Set", "x")


def test_a_small_table_is_loaded_directly_and_prepared_once(images: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("vividmed.data.own.direct.HF_HOME", str(tmp_path / "home"))
    table = write_table(images / "direct.csv", table_rows(["a.png", "b.png", "c.jpg"]))
    folder = prepared_location(str(table))
    splits = load_prepared(folder, what="data")
    assert set(splits) == {"train", "validation", "test"}
    written = {path: path.stat().st_mtime_ns for path in Path(folder).rglob("*.parquet")}
    assert prepared_location(str(table)) == folder
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert prepared_location("some/repository") == "some/repository"
    write_table(table, table_rows(["a.png", "none.png"]))
    with pytest.raises(
        VividMedError, match=r"1 rows cannot be used \(row 3, column 'Image'.*vividmed prepare table"
    ):
        prepared_location(str(table))
    table.unlink()


ADAPTER = """
from vividmed.data.adapters.base import Adapter, Case, ImageFile, LabelMap, files, register


@register
class Mine(Adapter):
    name = "mine"
    title = "Mine"
    modalities = ("CT",)
    licence = "internal use only"
    access = "internal"
    redistribute = "no"

    def cases(self, origin):
        for label in files(origin, "*_label.nii.gz"):
            image = label.with_name(label.name.replace("_label", ""))
            yield Case(
                id=image.name.partition(".")[0],
                patient=image.name.partition(".")[0],
                images=(ImageFile(path=image, modality="CT"),),
                annotations=(LabelMap(label, {"liver": 1}),),
            )
"""


@pytest.fixture
def own_registry(monkeypatch):
    get_adapter("lits")
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))


@pytest.mark.usefixtures("own_registry")
def test_an_adapter_in_a_file_prepares_its_data_and_reaches_other_processes(tmp_path: Path):
    file = tmp_path / "mine.py"
    file.write_text(ADAPTER)
    phantom = Phantom(size=(16, 14, 6))
    for number in range(2):
        phantom.write_image(tmp_path / f"origin/{number}.nii.gz")
        phantom.write_labels(tmp_path / f"origin/{number}_label.nii.gz")
    arguments = ["prepare", "--adapter", str(file), "--origin", str(tmp_path / "origin")]
    assert main([*arguments, "--output", str(tmp_path / "out")]) == 0
    assert read_terms(tmp_path / "out").access == "internal"
    copy = pickle.loads(pickle.dumps(get_adapter("mine")))
    assert copy.title == "Mine"


@pytest.mark.usefixtures("own_registry")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("x = ", "cannot be imported .SyntaxError"),
        ("x = 1", "registers no adapter"),
        (ADAPTER.replace('    licence = "internal use only"\n', ""), "lacks licence"),
        (ADAPTER.replace("def cases", "def other"), "lacks the method cases"),
        (ADAPTER.replace('access = "internal"', 'access = "open"'), "field 'homepage'"),
        (ADAPTER.replace('name = "mine"', 'name = "lits"'), "two adapters have the name 'lits'"),
    ],
)
def test_an_adapter_file_that_cannot_be_used_is_refused_in_one_line(content, message, tmp_path: Path):
    file = tmp_path / "mine.py"
    if content is not None:
        file.write_text(content)
    with pytest.raises(VividMedError, match=message) as caught:
        load_adapter_file(file)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("own_registry")
def test_other_packages_add_adapters_by_an_entry_point(tmp_path: Path, monkeypatch, caplog):
    (tmp_path / "their_adapters.py").write_text(ADAPTER)
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[vividmed.adapters]\nmine = their_adapters\nbroken = nothing_there\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    from vividmed.data import adapters

    adapters._import_all.cache_clear()
    assert get_adapter("mine").title == "Mine"
    assert "nothing_there of another package cannot be used" in caplog.text
