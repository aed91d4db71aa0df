"""``vividmed build --cogvlm``: a normal checkpoint from CogVLM in any form, with segmenters from SegVol."""

import errno
import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from tests.fixtures.others_weights import (
    COGVLM_TOKENIZER,
    byte_tokenizer,
    cogvlm_weights,
    save_cogvlm,
    save_shards,
)
from tests.fixtures.segvol import segvol_weights
from vividmed import VividMedForCausalLM, VividMedProcessor
from vividmed.cli.main import main
from vividmed.hub.card_fields import missing_fields
from vividmed.models.conversion import writing
from vividmed.models.conversion.cogvlm import load_cogvlm

SIZES = ["--patch-size", "4", "8", "8", "--position-grid", "4", "6", "6"]
SEGVOL_SIZES = ["--segvol-patch-size", "2", "4", "4", "--segvol-position-grid", "2", "2", "4"]


def build(*arguments) -> int:
    return main(["build", "--tokenizer", str(COGVLM_TOKENIZER), *SIZES, *map(str, arguments)])


def built_tensors(folder) -> dict[str, torch.Tensor]:
    return {name: value for file in folder.glob("*.safetensors") for name, value in load_file(file).items()}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A model built from a single float32 file and SegVol, and what the command printed."""
    folder = tmp_path_factory.mktemp("base")
    torch.save(segvol_weights(), folder / "SegVol.pth")
    cogvlm = save_cogvlm(folder / "cogvlm")
    segvol = ["--segvol", folder / "SegVol.pth", *SEGVOL_SIZES]
    assert build("--cogvlm", cogvlm, *segvol, "--output", folder / "base") == 0
    return folder / "base"


@pytest.mark.parametrize("form", ["safetensors", "bin"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_form_of_cogvlm_gives_the_model_of_load_cogvlm(tmp_path, form, dtype):
    cogvlm = save_cogvlm(tmp_path / "cogvlm", form=form, shards=3, dtype=dtype)
    assert build("--cogvlm", cogvlm, "--output", tmp_path / "base") == 0
    expected, _ = load_cogvlm(cogvlm, patch_size=(4, 8, 8), position_grid=(4, 6, 6), dtype=dtype)
    model = VividMedForCausalLM.from_pretrained(tmp_path / "base")
    assert model.dtype == dtype
    for name, tensor in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_built_model_answers_and_grounds_with_its_own_processor(base):
    processor = VividMedProcessor.from_pretrained(base)
    model = VividMedForCausalLM.from_pretrained(base)
    image = torch.rand(24, 24).numpy()
    batch = processor(images=image, text="Is there a nodule?", grounding=True)
    generated = model.generate(**batch, max_new_tokens=3)
    assert generated.shape[1] <= batch["input_ids"].shape[1] + 3
    assert model.segmenter.config.num_instance_queries == 3
    assert model.instance_segmenter.config.num_instance_queries == 6


def test_every_tensor_is_reported(base):
    report = json.loads((base / "conversion_report.json").read_text())
    written = set(built_tensors(base))
    assert set(report["copied"]) | set(report["converted"]) | set(report["new"]) == written
    assert not report["missing"]
    assert not report["unexpected"]
    assert {name.split(".")[0] for name in report["new"]} == {"grounding_projection", "instance_segmenter"}
    used = set(cogvlm_weights()) | set(segvol_weights())
    assert set(report["ignored"]) <= used
    assert any(name.endswith("inv_freq") for name in report["ignored"])


def test_without_a_licence_the_model_is_private_and_with_one_it_is_not(base, tmp_path):
    records = json.loads((base / "provenance.json").read_text())["datasets"]
    assert {record["access"] for record in records} == {"unknown"}
    assert "private use" in (base / "README.md").read_text()
    cogvlm = save_cogvlm(tmp_path / "cogvlm")
    assert build("--cogvlm", cogvlm, "--licence", "Apache-2.0", "--output", tmp_path / "base") == 0
    (record,) = json.loads((tmp_path / "base" / "provenance.json").read_text())["datasets"]
    assert (record["licence"], record["redistribute"]) == ("Apache-2.0", "yes")
    card = (tmp_path / "base" / "README.md").read_text()
    assert "license: apache-2.0" in card
    assert missing_fields(card) == []


def test_an_interrupted_build_continues_and_checks_what_it_finds(tmp_path, monkeypatch):
    cogvlm = save_cogvlm(tmp_path / "cogvlm", shards=2)
    monkeypatch.setattr("vividmed.weights.folder.SHARD_BYTES", 60_000)
    write = writing._write_file
    calls: list[str] = []

    def failing(path, *arguments):
        calls.append(path.name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return write(path, *arguments)

    monkeypatch.setattr(writing, "_write_file", failing)
    target = tmp_path / "base"
    assert build("--cogvlm", cogvlm, "--output", target) == 130
    assert not target.exists()
    partial = target.with_name(".base.partial")
    damaged = partial / calls[1]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\0")
    before, calls[:] = list(calls), ["x"] * 10
    assert build("--cogvlm", cogvlm, "--output", target) == 0
    rewritten = calls[10:]
    assert before[0] not in rewritten
    assert before[1] in rewritten
    assert not partial.exists()
    assert build("--cogvlm", cogvlm, "--output", tmp_path / "whole") == 0
    ours, whole = built_tensors(target), built_tensors(tmp_path / "whole")
    assert all(torch.equal(ours[name], whole[name]) for name in whole)


def damage(folder, kind: str) -> None:
    weights = sorted(folder.glob("*.safetensors"))
    config = folder / "config.json"
    if kind == "shard missing":
        weights[1].unlink()
    elif kind == "truncated":
        weights[0].write_bytes(weights[0].read_bytes()[:1000])
    elif kind == "wrong shape":
        content = load_file(weights[0])
        save_file(content | {"model.norm.weight": torch.zeros(3)}, weights[0])
        shutil.copy(weights[0], folder / "x")
        for path in weights[1:]:
            rest = load_file(path)
            rest.pop("model.norm.weight", None)
            save_file(rest, path)
        (folder / "model.safetensors.index.json").unlink()
        (folder / "x").unlink()
    elif kind == "unknown tensor":
        content = load_file(weights[0])
        save_file(content | {"model.extra.weight": torch.zeros(3)}, weights[0])
    elif kind == "missing tensor":
        (folder / "model.safetensors.index.json").unlink()
        content = load_file(weights[0])
        content.pop(sorted(content)[0])
        save_file(content, weights[0])
    elif kind == "code":
        for path in weights:
            path.unlink()
        (folder / "model.safetensors.index.json").unlink()
        torch.save({"a": torch.zeros(1), "b": subprocess.Popen}, folder / "pytorch_model.bin")
    elif kind == "not finite":
        content = load_file(weights[0])
        name = sorted(content)[0]
        save_file(content | {name: torch.full_like(content[name], float("nan"))}, weights[0])
    elif kind == "other architecture":
        config.write_text(json.dumps({"model_type": "bert", "hidden_size": 4}))
    elif kind == "no config":
        config.unlink()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("shard missing", "model-00002-of-00002.safetensors is missing"),
        ("truncated", "model-00001-of-00002.safetensors: cannot be read"),
        ("wrong shape", "model.norm.weight"),
        ("unknown tensor", "has unknown 1 tensors (model.extra.weight)"),
        ("missing tensor", "lacks 1 tensors (lm_head.weight)"),
        ("code", "could run code"),
        ("not finite", "lm_head.weight: contains NaN"),
        ("other architecture", "is not a configuration of CogVLM"),
        ("no config", "config.json does not exist"),
    ],
)
def test_wrong_input_ends_in_one_line(tmp_path, capsys, kind, message):
    cogvlm = save_cogvlm(tmp_path / "cogvlm", shards=2)
    damage(cogvlm, kind)
    assert build("--cogvlm", cogvlm, "--output", tmp_path / "base") == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "base").exists()


def test_allow_partial_makes_missing_tensors_new_and_ignores_unknown_ones(tmp_path):
    cogvlm = save_cogvlm(tmp_path / "cogvlm", shards=2)
    damage(cogvlm, "unknown tensor")
    damage(cogvlm, "missing tensor")
    assert build("--cogvlm", cogvlm, "--allow-partial", "--output", tmp_path / "base") == 0
    report = json.loads((tmp_path / "base" / "conversion_report.json").read_text())
    assert report["new"] == ["lm_head.weight"]
    assert "model.extra.weight" in report["ignored"]
    VividMedForCausalLM.from_pretrained(tmp_path / "base")


def test_output_with_content_and_missing_outputs_are_refused(tmp_path, capsys):
    cogvlm = save_cogvlm(tmp_path / "cogvlm")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    assert build("--cogvlm", cogvlm, "--output", tmp_path / "full") == 2
    assert build("--cogvlm", cogvlm) == 2
    assert build("--cogvlm", "nowhere", "--output", tmp_path / "base") == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert "not empty" in lines[0]
    assert "--output is missing" in lines[1]
    assert "--cogvlm nowhere: no such file or folder" in lines[2]


_MEASURE = """
import contextlib, io, os, resource, sys
import vividmed.weights.build, vividmed.weights.publishing
from vividmed.cli.main import main
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with contextlib.redirect_stdout(io.StringIO()):
    status = main(sys.argv[1:])
print(status, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("form", ["safetensors", "bin"])
def test_memory_of_a_build_stays_far_below_the_size_of_its_checkpoint(tmp_path, form):
    """A language model of 650 MB in 14 files, which becomes 1.2 GB, grows the process by less than 300 MB."""
    config = LlamaConfig(
        vocab_size=300, hidden_size=1024, intermediate_size=4096, num_hidden_layers=10, num_attention_heads=8,
        bos_token_id=256, eos_token_id=257,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    names = list(model.state_dict())
    (tmp_path / "llm").mkdir()
    config.save_pretrained(tmp_path / "llm")
    byte_tokenizer().save_pretrained(tmp_path / "llm")
    stem = "model" if form == "safetensors" else "pytorch_model"
    save_shards(tmp_path / "llm", model.state_dict(), stem=stem, suffix=form, shards=14)
    size = sum(tensor.nbytes for tensor in model.state_dict().values())
    del model
    arguments = ["build", "--llm", tmp_path / "llm", "--preset", "tiny", "--output", tmp_path / "base"]
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, *map(str, arguments)], capture_output=True, text=True, check=True
    )
    status, grown = map(int, done.stdout.split())
    assert (status, len(names) > 80, size > 600e6) == (0, True, True)
    assert grown * 1024 < size / 14 + 250e6


class _FullDisk:
    """A file on a disk that is full after some bytes."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, data):
        self.room[0] -= len(data)
        if self.room[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()


def test_a_full_disk_ends_in_one_line_and_the_build_continues_once_there_is_room(
    tmp_path, monkeypatch, capsys
):
    cogvlm = save_cogvlm(tmp_path / "cogvlm", shards=2)
    monkeypatch.setattr("vividmed.weights.folder.SHARD_BYTES", 60_000)
    room, opened = [150_000], writing.Path.open

    def open_(path, mode="r", *arguments, **options):
        file = opened(path, mode, *arguments, **options)
        return _FullDisk(file, room) if mode == "wb" and path.name.endswith(".partial") else file

    monkeypatch.setattr(writing.Path, "open", open_)
    target = tmp_path / "base"
    assert build("--cogvlm", cogvlm, "--output", target) == 2
    error = capsys.readouterr().err
    assert "No space left on device" in error
    assert "finished files are kept" in error
    assert error.count("\n") == 1
    assert not target.exists()
    kept = list(target.with_name(".base.partial").glob("*.safetensors"))
    assert kept
    room[0] = 10**9
    assert build("--cogvlm", cogvlm, "--output", target) == 0
    assert build("--cogvlm", cogvlm, "--output", tmp_path / "whole") == 0
    ours, whole = built_tensors(target), built_tensors(tmp_path / "whole")
    assert all(torch.equal(ours[name], whole[name]) for name in whole)
