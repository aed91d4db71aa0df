import importlib.util
import math
from dataclasses import fields
from typing import get_args, get_type_hints

import pytest
import yaml
from transformers.utils import logging

from tests.fixtures.paths import REPOSITORY
from vividmed.errors import VividMedError
from vividmed.training.settings.arguments import StageArguments
from vividmed.training.settings.parser import StageParser
from vividmed.training.settings.ranges import check_ranges
from vividmed.training.settings.resolved_config import resolved_config
from vividmed.training.stages.command import CONFIGS, STAGES, main, parse

SHIPPED = sorted({*CONFIGS.rglob("*.yaml")} - {*CONFIGS.glob("mixtures/*")})


@pytest.fixture
def config(tmp_path):
    def write(**values):
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(values))
        return str(path)

    return write


def test_command_line_wins_over_the_file_and_the_file_over_defaults(config):
    path = config(learning_rate=1e-3, max_length=99, packing=True)
    _, data, _, training = parse(["--stage", "vlm", "--config", path, "--max_length", "77"])
    assert (training.learning_rate, data.max_length, data.packing, data.truncation) == (
        1e-3,
        77,
        True,
        "error",
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stage", "vlx"], "--stage vlx: unknown stage; did you mean vlm?"),
        (["--stage", ""], "--stage : unknown stage"),
        (["--stage", "zzz"], "--stage zzz: unknown stage; choose one of align-sam, align-isam, vg, vlm, grg"),
        (
            ["--stage", "vlm", "--learning-rat", "1"],
            "unknown argument --learning-rat; did you mean --learning_rate?",
        ),
        (["--stage", "vlm", "--learning_rate", "fast"], "argument --learning_rate"),
        (["--stage", "vlm", "--truncation", "middle"], "argument --truncation"),
        (["--stage", "vlm", "--config", "nowhere.yaml"], "--config nowhere.yaml: No such file"),
        (["--stage", "vlm", "--load_in_4bit"], "need use_peft"),
        (["--stage", "vlm", "--remove_unused_columns"], "remove_unused_columns must be false"),
        (["--stage", "vlm", "--hub_strategy", "every_save"], "hub_strategy must be 'end'"),
        ([], "the following arguments are required: --stage"),
    ],
)
def test_wrong_argument_is_one_line_and_status_two(arguments, message, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


def test_unknown_key_of_a_file_names_the_file_and_the_nearest_key(config):
    with pytest.raises(
        VividMedError, match=r"config\.yaml: unknown argument max_lenght; did you mean max_length\?"
    ):
        parse(["--stage", "vlm", "--config", config(max_lenght=3)])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- a\n- b\n", "must contain 'name: value' lines"),
        (b"a: [", "not valid YAML"),
        ("max_steps: 3 # f\xfcr".encode("latin-1"), "not UTF-8 text"),
        (b"[" * 3000, "not valid YAML"),
        (b"max_steps: [1]", "max_steps is \\[1\\] but must be a whole number"),
        (b"max_steps: 2.5", "max_steps is '?2.5'? but must be a whole number"),
        (b"max_steps: true", "max_steps is True but must be a whole number"),
        (b"learning_rate: {a: 1}", "must be a number"),
        (b"packing: 3", "packing is 3 but must be true or false"),
        (b"eval_strategy: no", "put it in quotes"),
        (b"optim: fast", "must be one of adamw_torch"),
        (b"1: 2", "unknown argument 1"),
        (b"accelerator_config: {x: 3}", "unexpected keyword argument 'x'"),
        (b"logging_steps: 0", "requires non-zero --logging_steps"),
    ],
)
def test_file_of_other_content_than_settings_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(VividMedError, match=message) as caught:
        parse(["--stage", "vlm", "--use_cpu", "--config", str(path)])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("stage", STAGES)
def test_every_argument_has_a_help_text(stage):
    parser = StageParser((StageArguments, *STAGES[stage].arguments()))
    assert [action.dest for action in parser._actions if not action.help] == []


def test_resume_flag_needs_no_value():
    assert parse(["--stage", "vlm", "--resume_from_checkpoint"])[3].resume_from_checkpoint == "latest"
    assert parse(["--stage", "vlm", "--resume_from_checkpoint", "auto"])[3].resume_from_checkpoint == "auto"
    assert parse(["--stage", "vlm"])[3].resume_from_checkpoint is None


@pytest.mark.parametrize("stage", STAGES)
def test_settings_follow_from_the_data_where_no_file_is_named(stage):
    tiny, own, mixture = (
        parse(["--stage", stage, "--use_cpu", *options])[-1]
        for options in ([], ["--dataset_name", "folder"], ["--mixture", "mine.yaml"])
    )
    assert 0 < tiny.max_steps < 5000
    assert tiny.output_dir == f"outputs/{stage}"
    assert own.max_steps < 0 < own.num_train_epochs
    assert 0 < own.warmup_steps < 1
    assert mixture.max_steps >= 10000 or stage == "finetune"


def test_model_of_ones_own_starts_from_the_tiny_settings():
    assert 0 < parse(["--stage", "vlm", "--model_name_or_path", "outputs/vg"])[3].max_steps < 2000


@pytest.mark.parametrize(
    ("file", "given", "expected"),
    [
        (
            {"max_steps": 50000, "warmup_steps": 2500},
            ["--num_train_epochs", "3"],
            {"max_steps": -1, "num_train_epochs": 3, "warmup_steps": 0.05},
        ),
        (
            {"max_steps": 50000, "warmup_steps": 2500},
            ["--max_steps", "12"],
            {"max_steps": 12, "warmup_steps": 0.05},
        ),
        (
            {"max_steps": 100, "warmup_steps": 10},
            ["--max_steps", "50", "--warmup_steps", "7"],
            {"max_steps": 50, "warmup_steps": 7},
        ),
        (
            {"dataloader_num_workers": 8, "dataloader_prefetch_factor": 2},
            ["--dataloader_num_workers", "0"],
            {"dataloader_num_workers": 0, "dataloader_prefetch_factor": None},
        ),
        (
            {"use_peft": True, "load_in_4bit": True, "lora_r": 5, "bnb_4bit_quant_type": "fp4"},
            ["--use_peft", "false"],
            {"use_peft": False, "load_in_4bit": False, "lora_r": 16},
        ),
        ({"use_peft": True, "load_in_8bit": True}, ["--load_in_4bit"], {"load_in_8bit": False}),
        ({"muon": True}, ["--optim", "adafactor"], {"muon": False}),
        ({"optim": "adafactor"}, ["--muon"], {"muon": True}),
        (
            {"eval_strategy": "steps", "save_strategy": "steps", "load_best_model_at_end": True},
            ["--save_strategy", "no"],
            {"save_strategy": "no", "load_best_model_at_end": False},
        ),
    ],
    ids=[
        "epochs",
        "fewer steps",
        "own warm-up",
        "no workers",
        "no adapters",
        "other bits",
        "other optimizer",
        "muon",
        "no checkpoints",
    ],
)
def test_what_contradicts_the_command_line_gives_way_with_a_warning(config, caplog, file, given, expected):
    logging.get_logger("vividmed").parent.propagate = True
    parsed = parse(["--stage", "vlm", "--use_cpu", "--config", config(**file), *given])
    found = {name: getattr(group, name) for name in expected for group in parsed if hasattr(group, name)}
    assert found == expected
    if "--warmup_steps" not in given:
        assert "config.yaml" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--label_smoothing_factor", "0.1"], "--label_smoothing_factor has no effect"),
        (["--train_sampling_strategy", "sequential"], "--train_sampling_strategy has no effect"),
        (["--length_column_name", "n"], "--length_column_name has no effect"),
        (["--use_liger_kernel"], "--use_liger_kernel has no effect"),
        (["--bf16_full_eval"], "--bf16_full_eval has no effect"),
        (["--include_for_metrics", "loss"], "--include_for_metrics has no effect"),
        (["--eval_accumulation_steps", "2"], "--eval_accumulation_steps has no effect"),
        (["--logging_nan_inf_filter"], "--logging_nan_inf_filter has no effect"),
        (["--use_cache"], "--use_cache has no effect"),
        (["--optim_args", "a=1"], "--optim_args has no effect with --optim adamw_torch_fused"),
        (["--optim_target_modules", "all"], "--optim_target_modules has no effect"),
        (["--activation_checkpointing_kwargs", "{}"], "no effect without --activation_checkpointing"),
        (["--hub_model_id", "a/b"], "--hub_model_id: no effect without --push_to_hub"),
        (["--lora_r", "8", "--use_dora"], "--lora_r, --use_dora: no effect without --use_peft"),
        (["--use_peft", "--bnb_4bit_quant_type", "fp4"], "no effect without --load_in_4bit"),
        (["--model_revision", "v1"], "--model_revision: no effect without --model_name_or_path"),
        (["--dataset_revision", "v1"], "--dataset_revision: no effect without --dataset_name"),
        (["--mixture_root", "x"], "--mixture_root: no effect without --mixture"),
        (["--streaming"], "--streaming: no effect without --mixture"),
        (["--mixture", "m.yaml", "--max_train_samples", "3"], "--max_train_samples has no effect with"),
        (
            ["--independent_turns", "--shuffle_turns"],
            "--shuffle_turns has no effect with --independent_turns",
        ),
        (["--mixture", "m.yaml", "--train_sampling_strategy", "random"], "has no effect with --mixture"),
        (["--max_steps", "5", "--num_train_epochs", "2"], "both set the length of the run"),
        (["--max_steps", "5", "--warmup_steps", "9"], "--warmup_steps 9: the run has only 5 steps"),
    ],
)
def test_argument_that_would_be_ignored_is_refused_by_its_name(options, message, tmp_path, capsys):
    folder = str(tmp_path / "never")
    assert main(["--stage", "vlm", "--use_cpu", "--output_dir", folder, *options]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stage", "option"),
    [
        ("align-sam", "--packing"),
        ("align-sam", "--score_weight"),
        ("align-isam", "--dice_weight"),
        ("align-isam", "--generation_samples"),
        ("align-isam", "--crop"),
        ("vg", "--intensity_jitter"),
        ("grg", "--closed_question_samples"),
    ],
)
def test_argument_of_another_stage_is_unknown(stage, option):
    with pytest.raises(VividMedError, match=f"unknown argument {option}"):
        parse(["--stage", stage, "--use_cpu", option, "1"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--report_to", "wandb"], "--report_to wandb: the package is not installed"),
        (["--report_to", "wandbb"], "--report_to wandbb: unknown"),
        (["--fp16"], "--fp16: needs a GPU"),
        (["--metric_for_best_model", "accuracy"], "--metric_for_best_model accuracy: this stage's"),
        (["--optim", "lomo"], "--optim lomo: "),
        (["--fsdp", "full_shard"], "arguments: Using fsdp only works in distributed training"),
        (["--save_strategy", "best"], "arguments: `args.metric_for_best_model` must be provided"),
    ],
)
def test_what_this_machine_lacks_is_said_in_one_line_before_the_start(options, message, capsys, tmp_path):
    if options[-1] == "wandb" and importlib.util.find_spec("wandb") is not None:
        pytest.skip("wandb is installed")
    folder = tmp_path / "out"
    assert main(["--stage", "vlm", "--use_cpu", "--output_dir", str(folder), *options]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not list(folder.glob("checkpoint-*"))


def test_no_number_of_any_stage_may_be_infinite_undefined_or_far_below_its_range():
    for stage in STAGES:
        for group in parse(["--stage", stage, "--use_cpu"]):
            hints = get_type_hints(type(group))
            for name in (f.name for f in fields(group)):
                if not {int, float} & {hints[name], *get_args(hints[name])}:
                    continue
                default = getattr(group, name)
                for number in (math.nan, math.inf, -7):
                    setattr(group, name, number)
                    with pytest.raises(
                        VividMedError, match=f"--{name} {number:g}: must be at least|more than"
                    ):
                        check_ranges(group)
                setattr(group, name, default)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seed", "4294967296"], "--seed 4294967296: must be at least 0 and at most 4294967295"),
        (["--max_steps", "0"], "--max_steps 0: must be at least 1, or -1"),
        (["--per_device_eval_batch_size", "0"], "--per_device_eval_batch_size 0: must be at least 1"),
        (["--gradient_accumulation_steps", "0"], "--gradient_accumulation_steps 0: must be at least 1"),
        (["--adam_beta2", "1"], "--adam_beta2 1: must be at least 0 and less than 1"),
        (["--num_train_epochs", "0"], "--num_train_epochs 0: must be more than 0"),
        (["--max_train_samples", "0", "--dataset_name", "x"], "--max_train_samples 0: must be at least 1"),
    ],
)
def test_number_outside_its_range_is_refused_with_the_range(options, message):
    with pytest.raises(VividMedError) as caught:
        parse(["--stage", "vlm", "--use_cpu", *options])
    assert message in str(caught.value)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_shipped_configuration_parses_and_names_its_command(path):
    name = str(path.relative_to(CONFIGS)).removeprefix("own/")
    stage = next((stage for stage in STAGES if name.startswith(stage.replace("-", "_"))), "vlm")
    parse(["--stage", stage, "--config", str(path), "--use_cpu"])
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any("accelerate launch" in line or "vividmed train" in line for line in header)


@pytest.mark.parametrize("name", ["vlm_lora.yaml", "configs/vlm_lora.yaml", "stages/configs/vlm_lora.yaml"])
def test_configuration_of_the_package_is_found_by_its_name_in_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parse(["--stage", "vlm", "--config", name, "--use_cpu"])[2].lora_r == 64
    fine = parse(["--stage", "finetune", "--config", "finetune/vqa_rad.yaml", "--use_cpu"])[-1]
    assert fine.max_steps == 10_000
    with pytest.raises(VividMedError, match=r"--config mine/vlm_lora\.yaml: No such file"):
        parse(["--stage", "vlm", "--config", "mine/vlm_lora.yaml"])
    (tmp_path / "vlm_lora.yaml").write_text("use_peft: true\nlora_r: 3")
    assert parse(["--stage", "vlm", "--config", "vlm_lora.yaml", "--use_cpu"])[2].lora_r == 3


@pytest.mark.parametrize("stage", ["align-sam", "align-isam", "vg", "grg"])
def test_mixture_is_that_of_the_command_line_or_of_the_named_file(stage):
    assert parse(["--stage", stage, "--dataset_name", "folder", "--use_cpu"])[1].mixture is None
    named = parse(["--stage", stage, "--mixture", "mine.yaml", "--use_cpu"])
    assert named[1].mixture == "mine.yaml"
    path = CONFIGS / f"{stage.replace('-', '_')}.yaml"
    published = parse(["--stage", stage, "--config", str(path), "--dataset_name", "folder", "--use_cpu"])
    assert published[1].mixture == str(CONFIGS / "mixtures" / path.name)


def test_published_adapter_settings_are_shipped():
    model = parse(["--stage", "vlm", "--config", str(CONFIGS / "vlm_lora.yaml"), "--use_cpu"])[2]
    assert (model.use_peft, model.lora_r, model.lora_alpha, model.lora_dropout) == (True, 64, 8, 0.05)
    assert model.use_rslora
    quantised = parse(["--stage", "vlm", "--config", str(CONFIGS / "vlm_qlora.yaml"), "--use_cpu"])[2]
    assert (quantised.load_in_4bit, quantised.bnb_4bit_quant_type) == (True, "nf4")


def test_resolved_config_starts_the_same_run_again(tmp_path):
    arguments = [
        "--stage",
        "vlm",
        "--max_length",
        "77",
        "--use_peft",
        "--lora_r",
        "5",
        "--hub_token",
        "secret",
        "--accelerator_config",
        '{"dispatch_batches": false}',
    ]
    first = parse([*arguments, "--learning_rate", "0.003", "--resume_from_checkpoint", "auto", "--use_cpu"])
    path = tmp_path / "resolved.yaml"
    path.write_text(resolved_config(first))
    assert "secret" not in path.read_text()
    again = parse(["--config", str(path)])
    assert again[0].stage == "vlm"
    assert again[3].accelerator_config.dispatch_batches is False
    for ours, theirs in zip(again[1:3], first[1:3], strict=True):
        assert ours == theirs
    ours, theirs = again[3].to_dict(), first[3].to_dict()
    for only_once in ("hub_token", "resume_from_checkpoint"):
        ours.pop(only_once)
        theirs.pop(only_once)
    assert ours == theirs


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "stages" / "accelerate").glob("*.yaml")), ids=lambda p: p.stem
)
def test_accelerate_configuration_is_read_by_accelerate(path):
    from accelerate.commands.config.config_args import load_config_from_file

    loaded = load_config_from_file(str(path))
    assert loaded.num_machines == 1
    assert loaded.num_processes in (1, 8)
