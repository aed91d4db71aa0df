"""The fuzzing tool: equal seeds give equal inputs, faults are counted, and the kinds it tries have none."""

import time

import pytest

from benchmarks.fuzz.__main__ import SUBJECTS, main
from benchmarks.fuzz.run import fuzz
from vividmed.errors import VividMedError

BOUNDS = {"max_seconds": 0.2, "max_bytes": 1 << 28}


class Scripted:
    """Ends in a way that its index chooses."""

    name = "scripted"
    share = 1

    def __init__(self):
        self.drawn = []

    def try_one(self, rng, folder):
        self.drawn.append(rng.random())
        match len(self.drawn):
            case 1:
                raise VividMedError("a.png: damaged; copy it again")
            case 2:
                raise ValueError("raw")
            case 3:
                raise VividMedError("two\nlines")
            case 4:
                time.sleep(5)


def test_every_ending_is_counted_and_inputs_depend_on_seed_and_index_only():
    first, second, other = Scripted(), Scripted(), Scripted()
    outcome = fuzz(first, range(5), seed=1, **BOUNDS)
    assert (outcome.tried, outcome.accepted, outcome.refused) == (5, 1, 1)
    assert [fault.error.split(":")[0] for fault in outcome.faults] == [
        "ValueError",
        "VividMedError",
        "Overrun",
    ]
    fuzz(second, [4, 0], seed=1, **BOUNDS)
    assert second.drawn == [first.drawn[4], first.drawn[0]]
    fuzz(other, [0], seed=2, **BOUNDS)
    assert other.drawn != first.drawn[:1]


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [(kind, 40) for kind in ("images", "dicom", "nifti", "conversations", "tables")]
    + [("configurations", 10), ("checkpoints", 5)],
)
def test_broken_input_ends_in_one_line(kind, inputs, capsys):
    status = main(["--inputs", str(inputs), "--seed", "5", "--kind", kind, "--processes", "1"])
    printed = capsys.readouterr().out
    assert status == 0, printed
    assert f"{kind:16}{inputs:8}" in printed


def test_the_command_fails_and_tells_how_to_repeat_a_fault(monkeypatch, capsys):
    monkeypatch.setattr("benchmarks.fuzz.__main__.SUBJECTS", (_Broken,))
    assert main(["--inputs", "2", "--seed", "9", "--processes", "1"]) == 1
    assert "again: --seed 9 --kind broken --index 0" in capsys.readouterr().out
    assert len({subject.name for subject in SUBJECTS}) == len(SUBJECTS)


class _Broken:
    name = "broken"
    share = 1

    def try_one(self, rng, folder):
        raise KeyError("x")


@pytest.mark.slow
def test_the_command_divides_its_inputs_among_processes(capsys):
    assert main(["--inputs", "4", "--kind", "tables", "--processes", "2"]) == 0
    assert f"{'tables':16}{4:8}" in capsys.readouterr().out
