"""Folders of published numbers that use what the bundled one does not."""

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from tests.parity.harness import BUNDLED, TOLERANCE, Golden, load_cases


@pytest.fixture
def folder(tmp_path):
    """A copy of the bundled folder; large files are linked."""
    for path in BUNDLED.iterdir():
        if path.name in ("golden.json", "07_vlm_inputs.safetensors", "10_train_step.safetensors"):
            shutil.copy(path, tmp_path)
        else:
            (tmp_path / path.name).symlink_to(path)
    return tmp_path


def edit_case(folder, name, change):
    """Apply ``change(description, tensors)`` to a case of a folder."""
    path = folder / "golden.json"
    golden = json.loads(path.read_text())
    description = golden["cases"][name]
    tensors = load_file(folder / description["file"])
    change(description, tensors)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / description["file"])
    path.write_text(json.dumps(golden))


def failures(folder, name):
    checks = list(load_cases()[name](Golden(folder)))
    assert checks
    return [f"{check.name}: {check.difference:.2e}" for check in checks if not check.difference <= TOLERANCE]


def label_all(description, tensors):
    assert description["vg_label_mask"][1:] == [[True, True], []]
    description["vg_label_mask"][1:] = [None, None]


def ask_boxes_of_a_sample_without_phrases(description, tensors):
    assert not description["vg_label_mask"][2]
    description["instance_mask"][2] = True


def both(description, tensors):
    label_all(description, tensors)
    description["instance_mask"][2] = True


@pytest.mark.parametrize("change", [label_all, ask_boxes_of_a_sample_without_phrases, both])
def test_training_step_reads_every_form_of_labels(folder, change):
    edit_case(folder, "10_train_step", change)
    assert not failures(folder, "10_train_step")


@pytest.mark.parametrize("length", [2, 9, 14])
def test_conversations_cut_inside_the_prompt_agree_on_what_is_left(folder, length):
    def cut(description, tensors):
        for index, item in enumerate(description["conversations"]):
            if item["max_seq_len"] is None:
                item["max_seq_len"] = length
                for name in [name for name in tensors if name.startswith(f"{index}.")]:
                    tensors[name] = tensors[name][:length]

    edit_case(folder, "07_vlm_inputs", cut)
    assert not failures(folder, "07_vlm_inputs")


def test_a_wrong_number_is_still_found(folder):
    def spoil(description, tensors):
        label_all(description, tensors)
        tensors["total_loss"] += 0.01

    edit_case(folder, "10_train_step", spoil)
    assert [text.partition(":")[0] for text in failures(folder, "10_train_step")] == ["total_loss"]
