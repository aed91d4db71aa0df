"""Importing the package: light, and known to the Auto classes in whatever order things are imported."""

import subprocess
import sys
from pathlib import Path

import pytest
import transformers
from transformers.models.auto import modeling_auto

import vividmed
from vividmed import Segmenter, SegmenterConfig, VividMedConfig, VividMedForCausalLM, VividMedProcessor
from vividmed.registration import register_auto_classes

AUTO = {
    "AutoConfig": "VividMedConfig",
    "AutoImageProcessor": "VividMedImageProcessor",
    "AutoModel": "VividMedModel",
    "AutoModelForCausalLM": "VividMedForCausalLM",
    "AutoModelForImageTextToText": "VividMedForCausalLM",
    "AutoModelForMultimodalLM": "VividMedForCausalLM",
    "AutoProcessor": "VividMedProcessor",
}
PACKAGE_FIRST = """
import sys
import vividmed
assert not {"torch", "transformers"} & set(sys.modules)
from transformers import AutoModelForImageTextToText, AutoProcessor
assert type(AutoModelForImageTextToText.from_pretrained(sys.argv[1])) is vividmed.VividMedForCausalLM
assert type(AutoProcessor.from_pretrained(sys.argv[1])) is vividmed.VividMedProcessor
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    processor = VividMedProcessor.tiny()
    processor.save_pretrained(folder)
    VividMedForCausalLM(VividMedConfig.tiny(vocab_size=len(processor.tokenizer))).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("auto", AUTO)
def test_auto_classes_load_vividmed(folder, auto):
    loaded = getattr(transformers, auto).from_pretrained(folder)
    assert type(loaded) is getattr(vividmed, AUTO[auto])


def test_auto_classes_load_segmenters(tmp_path):
    Segmenter(SegmenterConfig.tiny()).save_pretrained(tmp_path)
    assert type(transformers.AutoModel.from_pretrained(tmp_path)) is Segmenter


def test_a_bare_import_is_light_and_makes_vividmed_known(folder):
    done = subprocess.run(
        [sys.executable, "-c", PACKAGE_FIRST, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
    )
    assert done.returncode == 0, done.stderr


def test_classes_become_known_where_the_auto_classes_were_imported_before(folder, monkeypatch):
    for mapping in (modeling_auto.MODEL_MAPPING, modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING):
        monkeypatch.delitem(mapping._model_mapping, "vividmed")
        monkeypatch.delitem(mapping._reverse_config_mapping, "VividMedConfig")
        assert VividMedConfig not in mapping
    register_auto_classes()
    assert type(transformers.AutoModelForCausalLM.from_pretrained(folder)) is VividMedForCausalLM


def test_every_public_name_is_there_and_listed():
    for name in vividmed.__all__:
        assert getattr(vividmed, name) is getattr(vividmed, name)
        assert name in dir(vividmed)
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = vividmed.Nothing
