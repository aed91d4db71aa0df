"""Checks of a run before anything is loaded: problems by name, and estimates that follow from the sizes."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.fixtures.training import small_model, small_processor
from vividmed.cli.main import main
from vividmed.errors import VividMedError
from vividmed.files import packaged_folder
from vividmed.models.configuration_vividmed import VividMedConfig, VividMedTextConfig, VividMedVisionConfig
from vividmed.processing.image_processing_vividmed import VividMedImageProcessor
from vividmed.training.estimation.checking import parse_memory, read_sharding
from vividmed.training.estimation.estimate import GIB, Sharding
from vividmed.training.estimation.tracking import LiveBytes, measure_block

PROCESSOR = small_processor()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    small_model(PROCESSOR).save_pretrained(folder)
    PROCESSOR.save_pretrained(folder)
    return folder


def check(capsys, *arguments):
    """Status, output and errors of a check of stage vlm."""
    status = main(["check", "--stage", "vlm", "--report_to", "none", *map(str, arguments)])
    return status, *capsys.readouterr()


def peak(output, name="peak"):
    return float(next(line for line in output.splitlines() if line.startswith(f"  {name} ")).split()[-2])


def test_check_prints_weights_parts_and_the_largest_batch(base, capsys):
    status, output, _ = check(capsys, "--model_name_or_path", base, "--cpu", "--gpu-memory", "1GB")
    assert status == 0
    assert "tensors of" in output
    total = sum(parameter.numel() for parameter in small_model(PROCESSOR).parameters())
    assert f"trained: {total:,} weights, 100.00 %" in output
    for part in ("weights", "gradients", "optimizer", "activations", "peak"):
        assert f"\n  {part} " in output
    assert "largest batch that fits 1 GiB" in output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {name: t[name] for name in list(t)[1:]}, "tensors are missing"),
        (lambda t: t | {"model.norm.weight": torch.ones(7)}, "other shapes than config.json asks for"),
    ],
)
def test_weights_that_do_not_fit_are_a_problem_before_they_are_loaded(
    base, tmp_path, capsys, change, message
):
    for path in base.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    save_file(
        change(load_file(base / "model.safetensors")),
        tmp_path / "model.safetensors",
        metadata={"format": "pt"},
    )
    status, output, errors = check(capsys, "--model_name_or_path", tmp_path, "--cpu")
    assert status == 2
    assert message in output
    assert message in errors
    # The estimate needs no weights.
    assert peak(output) > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--learning_rte", "1"], "did you mean --learning_rate"),
        (["--dataset_name", "./nowhere", "--eval_strategy", "no"], "problem"),
        (["--gpu-memory", "much"], "is not a size in gigabytes"),
        (["--load_in_4bit"], "need use_peft"),
        (["--metric_for_best_model", "beauty"], "choose one of them"),
    ],
)
def test_problems_of_arguments_and_data_are_named(base, capsys, monkeypatch, arguments, message):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    status, _, errors = check(capsys, "--model_name_or_path", base, "--cpu", *arguments)
    assert status == 2
    assert message in errors


def plan_of_17b(*groups, depth=None, **options):
    from vividmed.training.adapters.groups import GROUNDING_MODULES
    from vividmed.training.estimation.checking import _PresetVocabulary
    from vividmed.training.estimation.planning import RunPlan
    from vividmed.training.settings.arguments import VlmDataArguments, VlmTrainingArguments
    from vividmed.training.settings.model_arguments import ModelArguments

    config = VividMedConfig(vision_config=VividMedVisionConfig(), text_config=VividMedTextConfig())
    if depth is not None:
        config.vision_config.num_hidden_layers = config.text_config.num_hidden_layers = depth
    processor = type("Processor", (), {})()
    processor.image_processor, processor.tokenizer = VividMedImageProcessor(), _PresetVocabulary(32008)
    adapted = {"use_peft": True, "adapter_groups": list(groups)} if groups else {}
    optimizer = (
        {"muon": True} if options.pop("muon", False) else {"optim": options.pop("optim", "adamw_torch")}
    )
    return RunPlan(
        config,
        processor,
        model_args=ModelArguments(**adapted, **options),
        data_args=VlmDataArguments(),
        training_args=VlmTrainingArguments(
            output_dir="x", use_cpu=True, bf16=True, report_to="none", activation_checkpointing=True, **optimizer,
        ),
        frozen=GROUNDING_MODULES,
    )  # fmt: skip


def test_estimate_of_the_17b_agrees_with_a_calculation_by_hand():
    """8.9 GB in NF4 and 0.5 GB for embedding and head; 7.5 GB for the published adapters, 4.2 GB for the rest whole."""
    published = plan_of_17b(
        "published", lora_r=64, dtype="bfloat16", load_in_4bit=True, use_bnb_nested_quant=True
    )
    state = published.state
    adapters = sum(p.numel() for name, p in published.model.named_parameters() if "lora_" in name)
    assert adapters == pytest.approx(470e6, rel=0.02)
    assert (state.gradients + state.optimizer + 4 * state.trainable) == pytest.approx(
        16 * state.trainable, rel=1e-6
    )
    frozen = state.weights - 4 * state.trainable
    assert frozen == pytest.approx(8.9e9 + 0.5e9, rel=0.05)
    embedding_and_head = 2 * 32008 * 4096
    assert 16 * adapters == pytest.approx(7.5e9, rel=0.02)
    assert 16 * embedding_and_head == pytest.approx(4.2e9, rel=0.01)
    # Norms, positions and the patch convolution are trained, too.
    assert embedding_and_head < state.trainable - adapters < 1.2 * embedding_and_head


def test_muon_keeps_one_number_for_each_weight_of_hidden_matrices():
    with_adamw, with_muon = (plan_of_17b(depth=1, muon=muon) for muon in (False, True))
    linear = sum(
        module.weight.numel()
        for name, module in with_muon.model.named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head" and module.weight.requires_grad
    )
    assert with_adamw.state.optimizer - with_muon.state.optimizer == 4 * linear


def test_estimate_grows_with_batch_and_length_and_sharding_divides_the_state():
    plan = plan_of_17b("language-experts", depth=2, lora_r=16, dtype="bfloat16")
    assert plan.estimate(2).peak > plan.estimate(1).peak > plan.estimate(1, 512).peak
    largest = plan.largest_batch(8 * GIB)
    assert plan.estimate(largest).peak <= 8 * GIB < plan.estimate(largest + 1).peak / 0.95
    whole = plan.estimate(1).parts
    plan.sharding = Sharding("fsdp2", 8)
    divided = plan.estimate(1).parts
    assert {name: divided[name] * 8 for name in ("weights", "optimizer")} == {
        name: whole[name] for name in ("weights", "optimizer")
    }


@pytest.mark.parametrize(
    ("file", "kind", "gpus"),
    [
        ("fsdp2", "fsdp2", 8),
        ("ddp", "ddp", 8),
        ("zero2", "zero2", 8),
        ("zero3", "zero3", 8),
        ("single", "none", 1),
    ],
)
def test_sharding_is_read_from_the_files_of_accelerate(file, kind, gpus):
    assert read_sharding(packaged_folder("stages/accelerate") / f"{file}.yaml") == Sharding(kind, gpus)


@pytest.mark.slow
def test_segmenters_are_in_the_estimate_of_stages_that_ground(capsys):
    arguments = ["check", "--report_to", "none", "--preset", "tiny", "--cpu", "--skip-data"]
    peaks = []
    for stage in ("vlm", "vg"):
        assert (
            main([*arguments, "--stage", stage, "--per_device_train_batch_size", "2", "--max_length", "256"])
            == 0
        )
        peaks.append(peak(capsys.readouterr().out))
    assert peaks[1] > peaks[0]


def test_damaged_file_of_accelerate_is_named(tmp_path):
    (tmp_path / "a.yaml").write_text("- 1")
    with pytest.raises(VividMedError, match="cannot be read"):
        read_sharding(tmp_path / "a.yaml")


@pytest.mark.parametrize(("text", "gigabytes"), [("24GB", 24), ("79.6 GiB", 79.6), ("8g", 8), ("48", 48)])
def test_sizes_of_memory_are_read(text, gigabytes):
    assert parse_memory(text) == pytest.approx(gigabytes * GIB)


def test_stored_activations_are_those_that_autograd_keeps():
    layer = torch.nn.Linear(8, 16, bias=False)
    states = torch.randn(4, 8, requires_grad=True)
    cost, output = measure_block(lambda x: layer(x).relu(), states, list(layer.parameters()))
    assert output.shape == (4, 16)
    # The result of relu, which is all that its gradient needs.
    assert cost.stored == cost.output == 4 * 16 * 4
    assert cost.gradients == 8 * 16 * 4
    with LiveBytes() as tracker:
        torch.zeros(1000)
    assert (tracker.live, tracker.peak) == (0, 4000)


def test_every_recipe_of_a_memory_size_parses():
    from vividmed.training.stages.command import parse

    for name in ("qlora_24gb", "lora_48gb", "lora_80gb", "full_8gpu"):
        path = packaged_folder("stages/configs") / f"{name}.yaml"
        for optim in ([], ["--optim", "adamw_torch"]):
            _, data_args, model_args, args = parse(
                ["--stage", "vlm", "--config", str(path), "--use_cpu", "--report_to", "none", *optim]
            )
        assert data_args.max_length == 1024
        assert model_args.use_peft == (name != "full_8gpu")
        assert args.gradient_checkpointing or args.activation_checkpointing
