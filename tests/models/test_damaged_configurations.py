"""A config.json of any content ends in one line, before time and memory are spent on what it claims."""

import json

import pytest
from transformers import AutoConfig

from tests.fixtures.phrases import SEGMENTER, grounded_model
from vividmed import (
    InstanceSegmenter,
    Segmenter,
    SegmenterConfig,
    VividMedConfig,
    VividMedError,
    VividMedForCausalLM,
    VividMedModel,
)
from vividmed.training.segmenters import load_segmenter


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grounded")
    grounded_model().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("segmenter")
    Segmenter(SegmenterConfig(**SEGMENTER)).save_pretrained(folder)
    return folder


def with_config(checkpoint, folder, change):
    """The checkpoint with another config.json: ``change`` edits its content, or is its text."""
    if callable(change):
        content = json.loads((checkpoint / "config.json").read_text())
        change(content)
        change = json.dumps(content)
    (folder / "config.json").write_text(change)
    (folder / "model.safetensors").symlink_to(checkpoint / "model.safetensors")
    return folder


def set_to(value, *path):
    def change(content):
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = value

    return change


def without(*path):
    def change(content):
        for key in path[:-1]:
            content = content[key]
        del content[path[-1]]

    return change


PARTS = ["text_config", "vision_config", "segmenter_config", "instance_segmenter_config"]


def assert_one_line(caught, source):
    assert str(caught.value).startswith(str(source))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    ["", "{", "[]", "[1]", "null", "3", '"x"']
    + [set_to(value, part) for part in PARTS for value in (3, "x", [1])]
    + [set_to(value, part, "hidden_size") for part in PARTS for value in ("96", None, -1, 0, 0.5, 10**30)]
    + [set_to(value, part, "num_hidden_layers") for part in PARTS for value in (0, 2**15, 2**63)]
    + [set_to(value, part, "patch_size") for part in PARTS[1:] for value in ([], [4, 16], [0, 1, 1], [2**31] * 3)]
    + [set_to(2**31, part, "decoder_num_hidden_layers") for part in PARTS[2:]]
    + [set_to(value, "phrase_start_token_id") for value in ("x", [], 1.5)],
)  # fmt: skip
@pytest.mark.parametrize("kind", [VividMedConfig, VividMedForCausalLM])
def test_configurations_that_no_model_has_are_refused(checkpoint, tmp_path, change, kind):
    folder = with_config(checkpoint, tmp_path, change)
    with pytest.raises(VividMedError) as caught:
        kind.from_pretrained(folder)
    assert_one_line(caught, folder)


def test_the_auto_class_refuses_them_too(checkpoint, tmp_path):
    folder = with_config(checkpoint, tmp_path, set_to("x", "text_config", "hidden_size"))
    with pytest.raises(VividMedError, match="hidden_size"):
        AutoConfig.from_pretrained(folder)


@pytest.mark.parametrize("kind", [VividMedConfig, SegmenterConfig, VividMedForCausalLM])
def test_a_folder_without_configuration_has_no_default(tmp_path, kind):
    with pytest.raises(VividMedError, match=r"there is no config\.json") as caught:
        kind.from_pretrained(tmp_path)
    assert_one_line(caught, tmp_path)


@pytest.mark.parametrize(
    "change",
    [without(part, "hidden_size") for part in PARTS[:2]]
    + [without(part) for part in PARTS[:2]]
    + [set_to(2**17, part, "hidden_size") for part in PARTS[:2]]
    + [set_to(2**19, part, "intermediate_size") for part in PARTS]
    + [set_to(2**22, "text_config", "vocab_size")]
    + [set_to([2**12] * 3, part, name) for part in PARTS[1:3] for name in ("patch_size", "position_grid")]
    + [set_to(99, part, "num_hidden_layers") for part in PARTS[:3]],
)
def test_sizes_are_compared_with_the_weights_before_memory_is_taken(checkpoint, tmp_path, change):
    folder = with_config(checkpoint, tmp_path, change)
    with pytest.raises(VividMedError, match=r"tensors (are missing|have other shapes)") as caught:
        VividMedForCausalLM.from_pretrained(folder)
    assert_one_line(caught, folder)


def test_the_base_model_reads_nothing_of_the_segmenters(checkpoint, tmp_path):
    folder = with_config(checkpoint, tmp_path, set_to(2**19, "segmenter_config", "intermediate_size"))
    assert isinstance(VividMedModel.from_pretrained(folder), VividMedModel)


@pytest.mark.parametrize("name", ["intermediate_size", "num_instance_queries", "num_hidden_layers"])
@pytest.mark.parametrize("kind", ["segmenter", "instance_segmenter"])
def test_segmenters_are_compared_with_their_weights_too(segmenter, tmp_path, name, kind):
    largest = {"intermediate_size": 2**19, "num_instance_queries": 2**12, "num_hidden_layers": 99}
    folder = with_config(segmenter, tmp_path, set_to(largest[name], name))
    with pytest.raises(VividMedError, match=r"tensors (are missing|have other shapes)") as caught:
        load_segmenter(kind, str(folder))
    assert_one_line(caught, f"--{kind} {folder}")


def test_only_the_modules_that_are_named_may_be_new(segmenter):
    heads = ("box_head", "score_head")
    assert isinstance(InstanceSegmenter.from_pretrained(segmenter, new_modules=heads), InstanceSegmenter)
    with pytest.raises(VividMedError, match=r"4 tensors are missing \(score_head"):
        InstanceSegmenter.from_pretrained(segmenter, new_modules=heads[:1])
