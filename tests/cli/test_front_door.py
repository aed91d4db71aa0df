"""The ``vividmed`` command: what it lists, what it refuses, and what it does not import."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vividmed.cli import prepare
from vividmed.cli.main import VERBS, main
from vividmed.cli.prepare import work
from vividmed.console import run_command
from vividmed.data.preparation.intensity import WINDOWS
from vividmed.data.raw.case import SPLITS

LIGHT = [
    ["--help"],
    ["--version"],
    ["data", "--help"],
    *([*words, "--help"] for words in VERBS if words != ("train",)),
]


def run_fresh(code, **environment):
    """Run code in an interpreter that has imported nothing yet."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_help_and_version_import_no_heavy_library():
    code = f"""
import contextlib, io, sys
from vividmed.cli.main import main
for arguments in {LIGHT!r}:
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as output:
        main(arguments)
    assert output.getvalue().strip(), arguments
    heavy = {{"torch", "transformers", "datasets", "numpy", "scipy", "PIL", "huggingface_hub"}} & set(sys.modules)
    assert not heavy, (arguments, heavy)
"""
    run_fresh(code)


def test_overview_fits_one_screen_and_lists_every_verb(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    for words, verb in VERBS.items():
        if words[:-1] in VERBS:
            assert " ".join(["vividmed", *words]) in prepare.__doc__
            continue
        assert any(line.split()[: len(words)] == list(words) and verb.summary in line for line in lines)


@pytest.mark.parametrize("arguments", [[], ["data"]])
def test_without_a_verb_the_overview_is_printed(arguments, capsys):
    assert main(arguments) == 2
    assert "data preview" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "unknown verb 'trian'; did you mean vividmed train?"),
        (["publish"], "did you mean vividmed push?"),
        (["preview", "x"], "did you mean vividmed data preview?"),
        (["data", "previw"], "did you mean vividmed data preview?"),
        (["data", "zzz"], "vividmed data: unknown verb 'zzz'; choose one of preview, sample"),
        (["zzz"], "choose one of train, prepare"),
        (["--verison"], "did you mean --version?"),
        (["push", "datset", "a", "b/c"], "unknown value 'datset'; did you mean dataset?"),
        (["push", "dataset", "a", "b/c", "--pubic"], "unknown argument --pubic; did you mean --public?"),
        (["push", "dataset", "a"], "required: namespace/name (see vividmed push --help)"),
        (["push", "dataset", "a", "b/c", "--public", "--gated"], "not allowed with argument --public"),
        (["prepare", "--orign", "x", "--list"], "did you mean --origin?"),
        (["prepare", "amos22"], "name a data set and its --origin"),
        (["prepare", "amos22", "--origin", "x"], "give --output, --push-to-hub or both"),
        (["prepare", "amos22", "--origin", "x", "--num-proc", "0"], "'0' is not a whole number above 0"),
        (["evaluate", "score", "x", "--seed", "-1"], "'-1' is not a whole number from 0 to 4294967295"),
        (["ground-reports", "tag", "--timeout", "nan"], "'nan' is not a number of seconds above 0"),
        (["ground-reports", "localize", "--least-score", "7"], "'7' is not a number from 0 to 1"),
        (["build", "--segvol-heads", "0"], "'0' is not a whole number above 0"),
        (["data", "preview", "x", "-n", "many"], "'many' is not a whole number above 0"),
        (["train", "--stage", "vml"], "did you mean vlm?"),
        (["train", "--stage", "vlm", "--max_step", "3"], "did you mean --max_steps?"),
    ],
)
def test_what_does_not_exist_is_one_line_that_names_the_nearest(arguments, message, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


def test_choices_written_out_for_speed_are_those_of_the_library():
    assert prepare.SPLITS == SPLITS
    assert set(work.WINDOWS) == set(WINDOWS)


def test_completion_in_bash_offers_verbs_sub_verbs_and_arguments(tmp_path, capsys):
    assert main(["--print-completion", "bash"]) == 0
    script = tmp_path / "vividmed.bash"
    script.write_text(capsys.readouterr().out)
    asked = {
        "vividmed pre": {"prepare"},
        "vividmed data ": {"preview", "sample"},
        "vividmed push ": {"dataset", "model"},
        "vividmed push model --ga": {"--gated"},
        "vividmed prepare --window l": {"lung"},
        "vividmed train --max_ste": {"--max_steps"},
    }
    for line, offered in asked.items():
        words = line.split(" ")
        ask = (
            f"source {script}; COMP_LINE='{line}' COMP_WORDS=({' '.join(words)}) COMP_CWORD={len(words) - 1}; "
            f'_shtab_vividmed vividmed "{words[-1]}" "{words[-2]}"; echo "${{COMPREPLY[@]}}"'
        )
        if not words[-1]:
            ask = ask.replace("COMP_CWORD", "COMP_WORDS+=(''); COMP_CWORD")
        done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=False)
        assert offered <= set(done.stdout.split()), (line, done.stdout, done.stderr)


def test_missing_library_names_the_extra_that_brings_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "vividmed.hub.publish", None)

    def unavailable(*arguments):
        raise ModuleNotFoundError("No module named 'pyarrow'", name="pyarrow.parquet")

    monkeypatch.setattr("vividmed.cli.push.run", unavailable)
    assert main(["push", "dataset", "a", "b/c"]) == 2
    assert 'pip install "vividmed[data]"' in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_terminal_that_is_not_utf8_gets_what_it_can_show(monkeypatch, encoding):
    screen = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", screen)
    assert main(["prepare", "--list"]) == 0
    screen.flush()
    assert screen.buffer.getvalue().count(b"\n") > 60


def test_errors_are_shown_on_a_terminal_that_is_not_utf8(monkeypatch):
    screen = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stderr", screen)
    assert main(["data", "preview", "köln/日本"]) == 2
    screen.flush()
    assert screen.buffer.getvalue().startswith(b"error: k?ln/??")


def test_a_reader_that_has_seen_enough_is_no_error():
    command = f"{sys.executable} -m vividmed.cli.main --help | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2]
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EROFS, "writable disk"),
        (errno.EACCES, "read and write"),
        (errno.ENOSPC, "make room"),
        (errno.ENAMETOOLONG, "shorter path"),
    ],
)
def test_a_disk_that_cannot_be_written_is_one_line(number, remedy, capsys):
    def action():
        raise OSError(number, os.strerror(number), "/cache/vividmed/prepared")

    assert run_command(action) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: /cache/vividmed/prepared: ")
    assert remedy in error
    assert error.count("\n") == 1


def test_interruption_has_its_status(capsys):
    def action():
        raise KeyboardInterrupt

    assert run_command(action) == 130
    assert capsys.readouterr().err == "interrupted\n"
