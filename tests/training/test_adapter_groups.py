"""Groups of modules that adapters are put on, and adapters that load alike on every road from a clean process."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from tests.fixtures.training import make_row, small_config, small_processor
from vividmed.errors import VividMedError
from vividmed.models.configuration_vividmed import VividMedConfig
from vividmed.models.modeling_vividmed import VividMedForCausalLM
from vividmed.models.quantization import FULL_PRECISION_MODULES
from vividmed.models.segmenter.configuration_segmenter import InstanceSegmenterConfig, SegmenterConfig
from vividmed.processing.special_tokens import SPECIAL_TOKENS
from vividmed.training.adapters.groups import GROUNDING_MODULES, select_modules
from vividmed.training.loading import load_model
from vividmed.training.settings.grounding_arguments import GroundingArguments
from vividmed.training.settings.model_arguments import ModelArguments
from vividmed.training.stages.command import parse

PROCESSOR = small_processor()


def save_base(folder, tied):
    """Save a small grounding model with its processor."""
    config = small_config(PROCESSOR)
    config.segmenter_config = SegmenterConfig.tiny()
    config.instance_segmenter_config = InstanceSegmenterConfig.tiny()
    config.tie_word_embeddings = tied
    torch.manual_seed(0)
    VividMedForCausalLM(config).save_pretrained(folder)
    PROCESSOR.save_pretrained(folder)


@pytest.fixture(scope="module", params=[False, True], ids=["own head", "tied head"])
def base(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    save_base(folder, request.param)
    return folder


def adapted(base, *groups, frozen=(), **options):
    args = ModelArguments(
        model_name_or_path=str(base), use_peft=True, lora_r=2, adapter_groups=list(groups), **options
    )
    return load_model(
        args, PROCESSOR, base_folder=base, seed=0, frozen=frozen, grounding=GroundingArguments()
    )


PARTS = {
    "vision-experts": ("vision_expert_", "vision_mlp"),
    "language-experts": ("language_expert_", "language_mlp"),
    "vision-tower": ("model.vision.",),
}


@pytest.mark.parametrize("group", PARTS)
def test_group_puts_adapters_on_every_linear_layer_of_its_part_and_on_no_other(group):
    with torch.device("meta"):
        model = VividMedForCausalLM(VividMedConfig.tiny(grounding=True))
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    chosen = set(select_modules(model, groups=[group]).target_modules)
    assert chosen == {
        name for name in linear if any(mark in name for mark in PARTS[group]) and name.startswith("model.")
    }
    together = select_modules(model, groups=["all"], frozen=GROUNDING_MODULES)
    assert chosen < set(together.target_modules)
    assert set(together.target_modules) == set(select_modules(model).target_modules)


def test_only_rows_of_added_tokens_train_unless_the_published_groups_are_asked_for(base):
    model = adapted(base, "vision-experts", frozen=GROUNDING_MODULES)
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    others = [name for name in trainable if "lora_" not in name]
    assert others
    assert all("trainable_tokens_delta" in name for name in others)
    assert {trainable[name].shape[0] for name in others} == {len(SPECIAL_TOKENS)}
    published = adapted(base, "published", frozen=GROUNDING_MODULES)
    sizes = {n: p.shape[0] for n, p in published.named_parameters() if p.requires_grad and "embed" in n}
    assert len(PROCESSOR.tokenizer) in sizes.values()


@pytest.mark.parametrize(
    ("groups", "frozen", "segmenters"),
    [
        (["vision-tower", "segmenters"], (), True),
        (["language-experts"], (), False),
        (["all"], (), True),
        (["all"], GROUNDING_MODULES, False),
    ],
)
def test_segmenters_train_whole_where_their_group_is_named(base, groups, frozen, segmenters):
    model = adapted(base, *groups, frozen=frozen)
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    for root in GROUNDING_MODULES[:2]:
        assert any(f".{root}." in name for name in trainable) == segmenters
    # What leads to the segmenters trains with the stage.
    assert any("grounding_projection" in name for name in trainable) == (not frozen)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--adapter_groups", "vision"], "vision: unknown; choose from vision-experts"),
        (["--adapter_groups", "all", "--lora_target_modules", "fc1"], "both choose modules"),
        (["--adapter_groups", "all", "--adapt_language"], "belongs to the group 'published'"),
        (["--adapter_groups", "whole-tower", "--load_in_4bit"], "quantised weights cannot be trained"),
        (["--adapter_groups", "whole-tower", "--train_boundary_tokens"], "contains these tokens"),
        (["--adapter_groups", "whole-tower", "published"], "name one of them"),
    ],
)
def test_groups_that_cannot_be_are_named(arguments, message):
    with pytest.raises(VividMedError, match=message):
        parse(["--stage", "vlm", "--use_peft", *arguments])


def test_groups_come_from_the_command_line_and_from_yaml(tmp_path):
    _, _, model_args, _ = parse(["--stage", "vlm", "--use_peft", "--adapter_groups", "all", "published"])
    assert model_args.adapter_groups == ["all", "published"]
    (tmp_path / "c.yaml").write_text("use_peft: true\nadapter_groups: [vision-tower, language-experts]\n")
    _, _, model_args, _ = parse(["--stage", "vlm", "--config", str(tmp_path / "c.yaml")])
    assert model_args.adapter_groups == ["vision-tower", "language-experts"]


def test_group_of_what_is_frozen_is_refused(base):
    with pytest.raises(VividMedError, match="this run trains none"):
        adapted(base, "segmenters", frozen=GROUNDING_MODULES)
    with pytest.raises(VividMedError, match="puts an adapter on no layer"):
        adapted(base, "segmenters")
    for group in ("vision-tower", "whole-tower"):
        with pytest.raises(VividMedError, match=f"{group}: contradicts --freeze_vision"):
            adapted(base, group, "vision-experts", freeze_vision=True)


def test_whole_tower_trains_every_weight_of_the_tower_and_no_adapter_there(base):
    model = adapted(base, "whole-tower", "vision-tower", "vision-experts", frozen=GROUNDING_MODULES)
    tower = {
        name: p
        for name, p in model.named_parameters()
        if ".vision." in name and ".original_module." not in name
    }
    assert all(parameter.requires_grad for parameter in tower.values())
    assert {name.partition("default.")[2] for name in tower} == {
        name for name, _ in model.get_base_model().model.vision.original_module.named_parameters()
    }


_ROADS = """
import sys
from pathlib import Path
import torch
import vividmed
from peft import PeftModel
from transformers import AutoModelForImageTextToText

def onto_base(base, adapter):
    model = AutoModelForImageTextToText.from_pretrained(base)
    model.load_adapter(adapter)
    return model

roads = {
    "class": lambda base, adapter: vividmed.VividMedForCausalLM.from_pretrained(adapter),
    "auto": lambda base, adapter: AutoModelForImageTextToText.from_pretrained(adapter),
    "peft": lambda base, adapter: PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(base), adapter),
    "load_adapter": onto_base,
}
for case in map(Path, sys.argv[1:]):
    batch, base = torch.load(case / "batch.pt", weights_only=True)
    found = {}
    with torch.no_grad():
        for road, load in roads.items():
            model = load(base, str(case / "adapter")).eval()
            found[road] = model(**batch["text"]).logits, model.segmenter(*batch["masks"]).masks[0]
    torch.save(found, case / "found.pt")
"""


@torch.no_grad()
@pytest.mark.slow
def test_adapter_gives_the_same_on_every_road_from_a_clean_process(tmp_path):
    inputs = dict(PROCESSOR(images=make_row(0)["images"], text="What is the modality?"))
    batch = {
        "text": {name: value for name, value in inputs.items() if name != "geometry"},
        "masks": ([torch.rand(3, 4, 16, 16)], [torch.ones(1, 96)], [(4, 16, 16)]),
    }
    expected = {}
    for tied, *groups in (
        (False, "all"),
        (True, "all"),
        (False, "published"),
        (True, "whole-tower", "language-experts", "segmenters"),
    ):
        case = tmp_path / f"{tied}-{groups[0]}"
        save_base(case / "base", tied)
        model = adapted(case / "base", *groups, train_boundary_tokens="whole-tower" not in groups).eval()
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.02 * torch.randn_like(parameter)
        model.save_pretrained(case / "adapter")
        torch.save((batch, str(case / "base")), case / "batch.pt")
        masks = model.get_base_model().segmenter(*batch["masks"]).masks[0]
        expected[case] = model(**batch["text"]).logits, masks
    subprocess.run([sys.executable, "-c", _ROADS, *expected], check=True)
    for case, outputs in expected.items():
        for road, found in torch.load(case / "found.pt", weights_only=True).items():
            torch.testing.assert_close(found, outputs, atol=1e-6, rtol=1e-6, msg=f"{case.name} {road}")


@pytest.mark.parametrize("prefix", ["", "model."])
def test_every_segmenter_projection_and_patch_layer_stays_unquantised(prefix):
    from transformers.quantizers.quantizers_utils import should_convert_module

    with torch.device("meta"):
        model = VividMedForCausalLM(VividMedConfig.tiny(grounding=True))
        model = model if prefix else model.model
    kept, quantised = [], []
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv3d | nn.ConvTranspose3d | nn.Embedding):
            chosen = should_convert_module(name, list(FULL_PRECISION_MODULES))
            (quantised if chosen else kept).append(name)
    roots = {name.removeprefix("model.").partition(".")[0] for name in kept}
    assert roots == {"embed_tokens", "vision", *((*GROUNDING_MODULES, "lm_head") if prefix else ())}
    assert all("layers." in name for name in quantised)
    assert not [name for name in quantised if name.startswith(GROUNDING_MODULES)]
    # Nothing of the stacks of layers is kept: both experts and the tower's blocks.
    assert not [name for name in kept if ".layers." in f".{name}" and not name.startswith(GROUNDING_MODULES)]


def test_a_plain_quantisation_configuration_leaves_them_alone_too(base):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    from transformers import BitsAndBytesConfig

    model = VividMedForCausalLM.from_pretrained(
        base, quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    )
    quantised = [
        name for name, module in model.named_modules() if isinstance(module, bitsandbytes.nn.Linear4bit)
    ]
    assert quantised
    assert all("layers." in name and name.startswith("model.") for name in quantised)
