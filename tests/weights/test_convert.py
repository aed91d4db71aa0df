"""``vividmed convert``: published adapters on a base that ``vividmed build`` made, against the published numbers."""

import json
import shutil

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from tests.fixtures.others_weights import COGVLM_TOKENIZER, GOLDEN, save_cogvlm, save_shards
from tests.parity.cases_language import TEXT_INPUTS, image_inputs
from tests.parity.harness import TOLERANCE, Golden
from vividmed import VividMedForCausalLM, VividMedProcessor
from vividmed.cli.main import main
from vividmed.errors import VividMedError
from vividmed.hub.card_fields import missing_fields
from vividmed.training.adapters.peft import load_adapter

golden = Golden(GOLDEN)
SIZES = ["--patch-size", "4", "8", "8", "--position-grid", "4", "6", "6"]


def convert(*arguments) -> int:
    return main(["convert", *map(str, arguments)])


def aligned(prefix: str) -> dict[str, torch.Tensor]:
    """The segmenter of the published model, as its alignment saves it."""
    return {
        f"model.{name.removeprefix(prefix)}": value
        for name, value in golden.weights.items()
        if name.startswith(prefix)
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A base with the weights that the published numbers were made with, and Lightning files of both segmenters."""
    folder = tmp_path_factory.mktemp("published")
    cogvlm = save_cogvlm(folder / "cogvlm")
    base = ["--tokenizer", str(COGVLM_TOKENIZER), *SIZES, "--output", str(folder / "base")]
    assert main(["build", "--cogvlm", str(cogvlm), *base]) == 0
    # The published model's 3D parts and token rows were trained further than inflation gives.
    built = load_file(folder / "base" / "model.safetensors")
    trained = {name: golden.weights[name].clone() for name in built}
    (folder / "base" / "model.safetensors").unlink()
    save_shards(folder / "base", trained, stem="model", suffix="safetensors", shards=2)
    for name, prefix in (("sam", "sam."), ("isam", "isam_model.")):
        lightning = {"state_dict": aligned(prefix), "epoch": 3, "hyper_parameters": {"lr": 1e-4}}
        torch.save(lightning, folder / f"{name}.ckpt")
    return folder


@pytest.fixture(scope="module")
def merged(place):
    files = ["--sam-checkpoint", place / "sam.ckpt", "--isam-checkpoint", place / "isam.ckpt"]
    arguments = [GOLDEN / "adapter", "--base", place / "base", "--merge", "--output", place / "merged"]
    assert convert(*arguments, *files, "--stage", 1) == 0
    return VividMedForCausalLM.from_pretrained(place / "merged").eval()


def inputs() -> dict:
    tensors = golden.tensors("02_lm")
    return {name: tensors[name] for name in TEXT_INPUTS} | image_inputs(golden, "02_lm")


@torch.no_grad()
def test_merged_adapter_has_the_published_outputs(merged):
    published, real = golden.tensors("09_adapter_forward"), golden.tensors("02_lm")["attention_mask"].bool()
    states = merged(**inputs(), output_hidden_states=True).hidden_states[-1]
    assert (states[real] - published["last_hidden"][real]).abs().max() < TOLERANCE
    asked, patch_sizes = golden.tensors("04_sam"), golden.case("04_sam")["patch_size"]
    (masks,) = merged.segmenter([asked["image.0"]], [asked["text_embedding.0"]], patch_sizes[:1]).masks
    assert (masks - published["sam_masks_image0"]).abs().max() < TOLERANCE


def test_converted_weights_see_the_pixels_and_positions_of_their_training(place, merged):
    assert merged.config.text_config.rope_low_precision is True
    assert VividMedProcessor.from_pretrained(place / "merged").image_processor.resampling == "published"


def test_output_is_private_and_says_why(place, merged):
    records = json.loads((place / "merged" / "provenance.json").read_text())["datasets"]
    assert {record["access"] for record in records} == {"unknown"}
    assert "no licence was found with the published weights" in (place / "merged" / "README.md").read_text()


def test_card_gives_what_is_known_of_the_released_stage(place, merged):
    card = (place / "merged" / "README.md").read_text()
    assert "33 public sets of CT, MR, ultrasound and X-ray images" in card
    assert missing_fields(card) == ["licence, in the metadata"]


def test_every_tensor_of_the_adapter_is_used(place, merged):
    report = json.loads((place / "merged" / "conversion_report.json").read_text())
    assert report["missing"] == report["unexpected"] == report["new"] == []
    adapter = load_file(GOLDEN / "adapter" / "adapter_model.safetensors")
    ignored = {name for name in report["ignored"] if name in adapter}
    # Only what draws with the other filter network, or estimates the quality of masks.
    assert all("output_hypernetworks_mlps" in name or "iou_prediction" in name for name in ignored)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "contains the semantic segmenter (sam.) without the random frequencies"),
        (["sam"], "give --isam-checkpoint"),
        (["isam"], "give --sam-checkpoint"),
    ],
)
def test_segmenters_without_their_alignment_are_refused_and_the_file_is_named(place, capsys, given, message):
    files = [argument for name in given for argument in (f"--{name}-checkpoint", place / f"{name}.ckpt")]
    arguments = [GOLDEN / "adapter", "--base", place / "base", "--merge", "--output", place / "refused"]
    assert convert(*arguments, *files) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (place / "refused").exists()


def language_adapter(folder, *, form: str):
    """A stage-2 adapter: language model and vision tower only."""
    folder.mkdir()
    weights = load_file(GOLDEN / "adapter" / "adapter_model.safetensors")
    segmenters = tuple(f"base_model.model.{prefix}" for prefix in ("sam.", "isam_model.", "vg_proj."))
    kept = {name: value for name, value in weights.items() if not name.startswith(segmenters)}
    if form == "bin":
        torch.save(kept, folder / "adapter_model.bin")
    else:
        save_file(kept, folder / "adapter_model.safetensors")
    shutil.copy(GOLDEN / "adapter" / "adapter_config.json", folder)
    return folder


@pytest.mark.parametrize("form", ["safetensors", "bin"])
@torch.no_grad()
def test_adapter_of_the_second_stage_needs_no_segmenters(place, merged, tmp_path, form):
    adapter = language_adapter(tmp_path / "stage2", form=form)
    assert convert(adapter, "--base", place / "base", "--merge", "--output", tmp_path / "merged") == 0
    model = VividMedForCausalLM.from_pretrained(tmp_path / "merged")
    assert model.segmenter is None
    real = golden.tensors("02_lm")["attention_mask"].bool()
    ours, theirs = model(**inputs()).logits[real], merged(**inputs()).logits[real]
    assert torch.equal(ours, theirs)


def test_unknown_and_missing_tensors_of_an_adapter_are_refused(place, tmp_path, capsys):
    adapter = language_adapter(tmp_path / "stage2", form="safetensors")
    assert convert(adapter, "--base", tmp_path, "--output", tmp_path / "x") == 2
    assert "is not a VividMed model; build one from CogVLM" in capsys.readouterr().err
    file = adapter / "adapter_model.safetensors"
    weights = load_file(file)
    save_file(weights | {"base_model.model.model.other.weight": torch.zeros(2)}, file)
    command = [adapter, "--base", place / "base", "--merge", "--output", tmp_path / "merged"]
    assert convert(*command) == 2
    assert "has unknown 1 tensors (base_model.model.model.other.weight)" in capsys.readouterr().err
    lost = next(name for name in weights if name.endswith("lora_B.weight"))
    save_file({name: value for name, value in weights.items() if name != lost}, file)
    assert convert(*command) == 2
    assert "lora_B of" in capsys.readouterr().err


@torch.no_grad()
def test_unmerged_adapter_equals_the_merged_model_on_every_road(place, merged, tmp_path):
    """Also on a base without segmenters, which the adapter brings."""
    files = ["--sam-checkpoint", place / "sam.ckpt", "--isam-checkpoint", place / "isam.ckpt"]
    target = tmp_path / "adapter"
    assert convert(GOLDEN / "adapter", "--base", place / "base", "--output", target, *files) == 0
    real = golden.tensors("02_lm")["attention_mask"].bool()
    expected = merged(**inputs()).logits[real]
    frequencies = merged.state_dict()["segmenter.prompt_encoder.position_encoding.frequencies"]
    with pytest.raises(VividMedError, match=r"has no segmenter for it; load the adapter with"):
        PeftModel.from_pretrained(VividMedForCausalLM.from_pretrained(place / "base"), str(target))
    onto = VividMedForCausalLM.from_pretrained(place / "base")
    onto.load_adapter(str(target))
    for model in (
        VividMedForCausalLM.from_pretrained(target),
        load_adapter(VividMedForCausalLM.from_pretrained(place / "base"), target),
        onto,
    ):
        # The merged product is rounded once, the unmerged one in every layer.
        assert (model(**inputs()).logits[real] - expected).abs().max() < 1e-4
        assert model.config.text_config.rope_low_precision is True
        own = {name: value for name, value in model.state_dict().items() if "frequencies" in name}
        assert any(torch.equal(value, frequencies) for value in own.values())
    assert main(["merge", str(target), "--output", str(tmp_path / "again")]) == 0
    again = VividMedForCausalLM.from_pretrained(tmp_path / "again")
    assert again.config.text_config.rope_low_precision is True
    for name, value in merged.state_dict().items():
        assert torch.allclose(again.state_dict()[name], value, atol=1e-6), name


@torch.no_grad()
def test_plain_peft_rounds_positions_as_the_other_roads_do(place, tmp_path):
    """An adapter without segmenters needs nothing that its tensors cannot say."""
    adapter = language_adapter(tmp_path / "stage2", form="safetensors")
    assert convert(adapter, "--base", place / "base", "--output", tmp_path / "adapter") == 0
    expected = VividMedForCausalLM.from_pretrained(tmp_path / "adapter")
    found = PeftModel.from_pretrained(
        VividMedForCausalLM.from_pretrained(place / "base"), str(tmp_path / "adapter")
    )
    assert found.get_base_model().config.text_config.rope_low_precision is True
    assert torch.equal(found(**inputs()).logits, expected(**inputs()).logits)


@torch.no_grad()
def test_a_converted_adapter_that_is_trained_further_keeps_what_it_needs(place, tmp_path):
    files = ["--sam-checkpoint", place / "sam.ckpt", "--isam-checkpoint", place / "isam.ckpt"]
    assert convert(GOLDEN / "adapter", "--base", place / "base", "--output", tmp_path / "first", *files) == 0
    base = VividMedForCausalLM.from_pretrained(place / "base")
    trained = load_adapter(base, tmp_path / "first", is_trainable=True)
    next(p for p in trained.parameters() if p.requires_grad).add_(0.01)
    trained.save_pretrained(tmp_path / "second")
    again = VividMedForCausalLM.from_pretrained(tmp_path / "second").eval()
    assert again.config.text_config.rope_low_precision is True
    assert torch.equal(again(**inputs()).logits, trained.eval()(**inputs()).logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_input_may_be_in_shards_in_bin_and_in_bfloat16(place, merged, tmp_path, dtype):
    weights = load_file(GOLDEN / "adapter" / "adapter_model.safetensors")
    adapter, base = tmp_path / "adapter", tmp_path / "base"
    adapter.mkdir()
    torch.save({name: value.to(dtype) for name, value in weights.items()}, adapter / "adapter_model.bin")
    shutil.copy(GOLDEN / "adapter" / "adapter_config.json", adapter)
    shutil.copytree(place / "base", base, ignore=shutil.ignore_patterns("*.safetensors*"))
    stored = {n: v.to(dtype) for file in place.glob("base/*.safetensors") for n, v in load_file(file).items()}
    save_shards(base, stored, stem="pytorch_model", suffix="bin", shards=3)
    for name, prefix in (("sam", "sam."), ("isam", "isam_model.")):
        aligned_ = {key: value.to(dtype) for key, value in aligned(prefix).items()}
        (tmp_path / name).mkdir()
        save_shards(tmp_path / name, aligned_, stem="model", suffix="safetensors", shards=2)
    files = ["--sam-checkpoint", tmp_path / "sam", "--isam-checkpoint", tmp_path / "isam"]
    assert convert(adapter, "--base", base, "--merge", "--output", tmp_path / "merged", *files) == 0
    found = load_file(tmp_path / "merged" / "model.safetensors")
    for name, expected in merged.state_dict().items():
        grounds = name.startswith(("segmenter.", "instance_segmenter.", "grounding_projection."))
        assert found[name].dtype == (torch.float32 if grounds else dtype), name
        # Rounded once in each input and once in the result.
        error = (found[name].float() - expected).abs().max()
        assert error <= (0 if dtype == torch.float32 else 0.02 * expected.abs().max() + 1e-3), name
