"""The steps on a Slurm cluster, whose programs are stand-ins, give the files of one process."""

import pytest

from tests.data.pseudo_labels.test_steps import files
from tests.fixtures.grounded_reports import write_label_maps, write_rows
from tests.fixtures.slurm import install_slurm
from vividmed.cli.main import main

pytestmark = pytest.mark.slow
REPORTS = [f"Findings: The liver is normal. {count} nodules. No effusion." for count in range(2, 7)]


def test_a_slurm_array_gives_the_files_of_one_process(tmp_path, monkeypatch, capsys):
    pytest.importorskip("datatrove", exc_type=ImportError)
    install_slurm(tmp_path / "bin", monkeypatch)
    rows = write_rows(tmp_path / "rows", REPORTS)
    maps = write_label_maps(tmp_path / "maps", len(REPORTS))
    made = {"one": rows, "array": rows}
    for step in ("clean", "tag", "filter", "localize", "rows"):
        for name, source in made.items():
            output = tmp_path / name / step
            command = ["ground-reports", step, "--input", str(source), "--output", str(output)]
            command += ["--shard-studies", "2", *(["--masks", str(maps)] if step == "localize" else [])]
            if name == "array":
                assert main([*command, "--tasks", "2", "--slurm", "cpu"]) == 0
                assert "submitted" in capsys.readouterr().out
            assert main(command) == 0
            assert (name == "one") != ("nothing had changed" in capsys.readouterr().out)
            made[name] = output
        one, array = (files(tmp_path / name / step) for name in made)
        assert one.keys() == array.keys()
        differing = {file for file in one if one[file] != array[file]}
        assert differing == set()
    data = [sorted((tmp_path / name / "rows/data").iterdir()) for name in made]
    assert [file.read_bytes() for file in data[0]] == [file.read_bytes() for file in data[1]]
