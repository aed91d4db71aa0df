import pytest
import yaml

from tests.fixtures.paths import REPOSITORY
from vividmed.errors import VividMedError
from vividmed.training.arguments import StageArguments
from vividmed.training.parser import StageParser
from vividmed.training.resolved_config import resolved_config
from vividmed.training.stages.command import CONFIGS, STAGES, main, parse


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


@pytest.mark.parametrize(("content", "message"), [("- a\n- b\n", "must hold"), ("a: [", "not valid YAML")])
def test_file_that_holds_no_settings_is_refused(tmp_path, content, message):
    path = tmp_path / "config.yaml"
    path.write_text(content)
    with pytest.raises(VividMedError, match=message):
        parse(["--stage", "vlm", "--config", str(path)])


@pytest.mark.parametrize("stage", STAGES)
def test_every_argument_has_a_help_text(stage):
    parser = StageParser((StageArguments, *STAGES[stage].arguments()))
    assert [action.dest for action in parser._actions if not action.help] == []


def test_resume_flag_needs_no_value():
    assert parse(["--stage", "vlm", "--resume_from_checkpoint"])[3].resume_from_checkpoint == "latest"
    assert parse(["--stage", "vlm", "--resume_from_checkpoint", "auto"])[3].resume_from_checkpoint == "auto"
    assert parse(["--stage", "vlm"])[3].resume_from_checkpoint is None


def test_stage_alone_takes_the_tiny_settings_and_own_material_the_published_ones():
    tiny, own = (
        parse(["--stage", "vlm"])[3],
        parse(["--stage", "vlm", "--dataset_name", "folder", "--use_cpu"])[3],
    )
    started = parse(["--stage", "vlm", "--model_name_or_path", "outputs/vg"])[3]
    assert tiny.max_steps == started.max_steps < 2000
    assert tiny.output_dir == "outputs/vlm"
    assert (own.max_steps, own.learning_rate, own.weight_decay, own.warmup_steps) == (50000, 5e-5, 0.01, 2500)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configuration_parses_and_names_its_command(path):
    stage = next(name for name in STAGES if path.stem.startswith(name.replace("-", "_")))
    parse(["--stage", stage, "--config", str(path), "--use_cpu"])
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any("accelerate launch" in line for line in header)


@pytest.mark.parametrize("stage", ["align-sam", "align-isam", "vg", "grg"])
def test_own_data_are_trained_on_with_the_published_settings_and_not_the_published_mixture(stage):
    own = parse(["--stage", stage, "--dataset_name", "folder", "--use_cpu"])
    assert own[1].mixture is None
    assert own[-1].max_steps >= 10000
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
    ]
    first = parse([*arguments, "--learning_rate", "0.003", "--resume_from_checkpoint", "auto", "--use_cpu"])
    path = tmp_path / "resolved.yaml"
    path.write_text(resolved_config(first[1:]))
    assert "secret" not in path.read_text()
    again = parse(["--stage", "vlm", "--config", str(path)])
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
