"""Every benchmark starts, and those that need no download run at tiny sizes."""

import importlib
import pkgutil
import sys

import pytest

import benchmarks
from benchmarks import decoder
from benchmarks.learning import phantoms

MODULES = [
    module.name
    for module in pkgutil.walk_packages(benchmarks.__path__, "benchmarks.")
    # Other modules with a `main` are workloads that a program starts.
    if {"main", "argparse"} <= vars(importlib.import_module(module.name)).keys()
]


def run(module, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [module.__name__, *arguments])
    return module.main()


@pytest.mark.parametrize("name", MODULES)
def test_benchmark_explains_itself(name, monkeypatch, capsys):
    with pytest.raises(SystemExit) as caught:
        run(importlib.import_module(name), monkeypatch, "--help")
    assert caught.value.code == 0
    assert "usage:" in capsys.readouterr().out


def test_decoder_benchmark_prints_both_ratios(monkeypatch, capsys):
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    monkeypatch.setattr(decoder, "WIDTHS", {"vocab_size": 64, **sizes})
    for name, value in {"BATCH": 2, "LENGTH": 32, "IMAGE_TOKENS": 8, "SUPERVISED": 8}.items():
        monkeypatch.setattr(decoder, name, value)
    run(decoder, monkeypatch, "--rounds", "1", "--decode-tokens", "2")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" ")[0] for line in lines if "ratio" in line] == ["forward", "decode"]


def test_phantom_benchmark_measures_an_untrained_model_as_poor(monkeypatch, tmp_path):
    monkeypatch.setattr(phantoms, "TRAINING", range(2))
    monkeypatch.setattr(phantoms, "LONGEST_REPORT", 4)
    phantoms.prepare(tmp_path)
    assert (tmp_path / "localization" / "train.parquet").is_file()
    figures = phantoms.measure(tmp_path / "untrained", [phantoms.make_phantom(100_000)])
    assert {figure.name for figure in figures if figure.target} == {
        "written reports: Dice of phrases with masks",
        "written reports: AP50 of boxes",
        "correct statements of side, size and count",
    }
    assert not all(figure.reached for figure in figures)
