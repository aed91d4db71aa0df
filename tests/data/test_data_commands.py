from pathlib import Path

import pytest

from tests.fixtures.preparation import Toy, add_case
from vividmed.cli.main import main
from vividmed.data.preparation.prepare import prepare_dataset


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    for number in range(4):
        add_case(folder / "origin", f"p{number}_0", seed=number)
    prepare_dataset(Toy(), folder / "origin", folder / "prepared/toy")
    return folder / "prepared/toy"


def test_preview_prints_counts_and_draws_a_sheet(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    assert main(["data", "preview", str(prepared), "--output", str(tmp_path / "sheet.png")]) == 0
    printed = capsys.readouterr().out
    assert sum(int(line.split()[1]) for line in printed.splitlines() if " rows, " in line) == 4
    assert ["liver", "tumor", "4", "0"] in [line.split() for line in printed.splitlines()]
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")


def test_sample_prints_the_conversation_and_what_phrases_are_grounded_in(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    config = tmp_path / "mixture.yaml"
    config.write_text("seed: 1\ndatasets:\n  - {name: toy, kind: localization, weight: 1}\n")
    arguments = ["data", "sample", "--config", str(config), "--root", str(prepared.parent), "-n", "3"]
    assert main([*arguments, "--output", str(tmp_path / "samples.png")]) == 0
    printed = capsys.readouterr().out
    assert printed.count("--- ") == 3
    assert printed.count("user: ") >= 3
    assert "<p>" in printed
    assert (tmp_path / "samples.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["nowhere"], "nowhere: is neither a folder nor"), (["{prepared}", "--split", "dev"], "--split dev")],
)
def test_wrong_input_is_one_line_and_status_2(
    arguments: list[str], message: str, prepared: Path, capsys: pytest.CaptureFixture
):
    assert main(["data", "preview", *(each.format(prepared=prepared) for each in arguments)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
