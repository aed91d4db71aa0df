"""``vividmed predict`` and ``vividmed evaluate``, from inputs to files, with a small random model."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.fixtures.paths import REPOSITORY
from vividmed.cli.main import main

MODEL = str(REPOSITORY / "tests" / "fixtures" / "checkpoints" / "556ac31" / "model")


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 255, (24, 20)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"image{number}.png")
    (folder / "broken.png").write_bytes(b"\x89PNG not really")
    return folder


def predict(images, output, *options):
    arguments = ["predict", str(images), "--model", MODEL, "--output", str(output), "--device", "cpu"]
    return main([*arguments, "--max-new-tokens", "4", *options])


def test_scans_are_predicted_once_and_failures_are_listed(images, tmp_path, capsys):
    output = tmp_path / "out"
    assert predict(images, output, "--formats", "json,png") == 1
    assert "2 scans predicted" in capsys.readouterr().out
    assert {path.name for path in (output / "image0").iterdir()} == {"result.json", "overlay.png"}
    assert "broken.png" in (output / "failures.csv").read_text()
    (images / "broken.png").unlink()
    assert predict(images, output, "--formats", "json") == 0
    assert "0 scans predicted, 2 had a result" in capsys.readouterr().out
    assert not (output / "failures.csv").exists()


def test_targets_are_segmented(images, tmp_path):
    output = tmp_path / "out"
    assert predict(images / "image0.png", output, "--task", "segment", "--targets", "liver,left kidney") == 0
    result = json.loads((output / "image0" / "result.json").read_text())
    assert [phrase["text"] for phrase in result["phrases"]] == ["liver", "left kidney"]


def test_chat_keeps_the_conversation(images, monkeypatch, capsys):
    asked = []
    questions = iter(["What is this?", "And where?", ""])
    monkeypatch.setattr("builtins.input", lambda prompt: next(questions))
    monkeypatch.setattr(
        "vividmed.processing.processing_vividmed.VividMedProcessor.__call__",
        record(asked),
    )
    arguments = ["predict", str(images / "image0.png"), "--model", MODEL, "--chat", "--device", "cpu"]
    assert main([*arguments, "--max-new-tokens", "3"]) == 0
    assert [len(messages) for messages in asked] == [1, 3]


def record(asked):
    from vividmed.processing.processing_vividmed import VividMedProcessor

    original = VividMedProcessor.__call__

    def call(self, *args, conversations=None, **kwargs):
        asked.append(list(conversations))
        return original(self, *args, conversations=conversations, **kwargs)

    return call


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.nii.gz", "--model", MODEL, "--output", "out"], "no such file"),
        (["{image}", "--model", "absent", "--output", "out"], "absent"),
        (["{image}", "--model", MODEL], "--output is missing"),
        (["{image}", "--model", MODEL, "--output", "out", "--task", "vqa"], "--task vqa needs --prompt"),
        (["{image}", "--model", MODEL, "--output", "out", "--task", "segment"], "needs --targets"),
        (["{image}", "--model", MODEL, "--output", "out", "--task", "ground"], "needs --text"),
        (["{image}", "--model", MODEL, "--output", "out", "--formats", "pdf"], "format 'pdf' is unknown"),
        (["{image}", "--model", MODEL, "--output", "out", "--task", "ground", "--text", "no.txt"], "no.txt"),
        (["{image}", "{image}2", "--model", MODEL, "--output", "out"], "no such file"),
    ],
)
def test_wrong_input_is_one_line(images, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["predict", *(word.format(image=images / "image0.png") for word in arguments)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_split_is_predicted_and_scored(tmp_path, monkeypatch, capsys):
    output = tmp_path / "predictions"
    arguments = ["evaluate", "predict", MODEL, "--task", "vqa", "--output", str(output), "--max_rows", "3"]
    protocol = tmp_path / "short.yaml"
    protocol.write_text(
        "description: d\nreport_prompt: p\nmax_new_tokens: 3\nkeep_markers: false\ndrop_last_image: false\n"
    )
    assert main([*arguments, "--protocol", str(protocol), "--device", "cpu"]) == 0
    assert main([*arguments, "--protocol", str(protocol), "--device", "cpu"]) == 0
    assert "0 items predicted, 3 were there" in capsys.readouterr().out
    assert main(["evaluate", "score", str(output), "--metrics", "text,vqa", "--samples", "20"]) == 0
    assert "| accuracy |" in capsys.readouterr().out
    assert {"scores.md", "scores.csv", "scores.json"} <= {path.name for path in output.iterdir()}
    assert main(["evaluate", "score", str(output), "--compare", str(output), "--samples", "20"]) == 0
    assert main([*arguments, "--split", "train", "--device", "cpu"]) == 2
    assert "predictions of another run" in capsys.readouterr().err
    assert main(["evaluate", "score", str(output), "--metrics", "nothing"]) == 2
