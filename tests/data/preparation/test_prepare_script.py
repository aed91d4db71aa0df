import os
import random
import shutil
import subprocess
import sys
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from datasets import load_dataset

from data_scripts.prepare import main
from tests.fixtures.hub.minihub import Hub, serve
from tests.fixtures.miniatures import Phantom, write_table
from vividmed.data.adapters import get_adapter
from vividmed.data.preparation.distributed import local_executor
from vividmed.data.preparation.prepare import plan_preparation, prepare_dataset

CASES = 12


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("amos")
    for number in range(1, CASES + 1):
        phantom = Phantom(values=(1, 2, 6), size=(24, 20, 14), seed=number)
        suffix = "Tr" if number % 3 else "Va"
        phantom.write_image(folder / f"amos22/images{suffix}/amos_{number:04d}.nii.gz")
        phantom.write_labels(folder / f"amos22/labels{suffix}/amos_{number:04d}.nii.gz")
    write_table(folder / "labeled_data_meta.csv", [{"amos_id": "1", "Patient's Sex": "M"}])
    return folder


def _shards(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((output / "data").iterdir())}


def test_the_card_lets_load_dataset_find_the_splits(
    origin: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    output = tmp_path / "out"
    arguments = ["amos22", "--origin", str(origin), "--output", str(output)]
    assert main(arguments) == 0
    loaded = load_dataset(str(output), cache_dir=str(tmp_path / "cache"))
    assert {split: rows.num_rows for split, rows in loaded.items()} == {"train": 8, "validation": 4}
    card = (output / "README.md").read_text(encoding="utf-8")
    for expected in (
        "CC BY 4.0 (not confirmed)",
        "| liver | 8 | 4 |",
        "Ji et al.",
        "amos22.grand-challenge.org",
    ):
        assert expected in card
    assert (output / "figures/sizes_and_spacings.png").stat().st_size > 1000
    capsys.readouterr()
    assert main(arguments) == 0
    assert "nothing had changed" in capsys.readouterr().out


def test_failed_cases_are_printed_and_the_status_says_so(
    origin: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    copy = tmp_path / "origin"
    for path in sorted(origin.rglob("*.*")):
        (copy / path.relative_to(origin)).parent.mkdir(parents=True, exist_ok=True)
        os.link(path, copy / path.relative_to(origin))
    (copy / "amos22/imagesTr/amos_0001.nii.gz").unlink()
    assert main(["amos22", "--origin", str(copy), "--output", str(tmp_path / "out")]) == 1
    assert "failed, amos_0001: amos22/imagesTr/amos_0001.nii.gz: no such file" in capsys.readouterr().out
    assert main(["amos22", "--origin", str(copy), "--verify"]) == 1
    table = capsys.readouterr().out
    assert "amos22/imagesTr/amos_*.nii.gz       240        7  incomplete" in table
    assert "amos_0001: amos22/imagesTr/amos_0001.nii.gz" in table


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["amos23", "--origin", "."], "did you mean amos22"),
        (["amos22", "--origin", "nowhere"], "nowhere: no such folder"),
        (["amos22", "--origin", "amos22.zip"], "amos22.zip: is not a folder; unpack it"),
        (["amos22", "--origin", "."], "labeled_data_meta"),
        (["vindr-cxr", "--origin", ".", "--window", "lung"], "--window is for CT"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "amos22.zip").touch()
    assert main([*arguments, "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "option", "named"),
    [
        ("lits", "--public", "registered participants"),
        ("word", "--gated", "on request"),
        ("vindr-cxr", "--gated", "PhysioNet"),
        ("mimic-cxr", "--public", "PhysioNet"),
    ],
)
def test_what_the_terms_forbid_is_refused_by_name_before_any_work(
    name: str, option: str, named: str, tmp_path: Path, capsys: pytest.CaptureFixture
):
    arguments = [name, "--origin", str(tmp_path), "--output", str(tmp_path / "out")]
    assert main([*arguments, "--push-to-hub", "me/it", option]) == 2
    error = capsys.readouterr().err
    assert f"the data set {name} may not be made {option[2:]} under the terms of its data" in error
    assert named in error
    assert "keep it private" in error
    assert not (tmp_path / "out").exists()


def test_the_list_shows_every_adapter_and_what_is_there(
    origin: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    (tmp_path / "amos22").symlink_to(origin)
    assert main(["--list", "--origin", str(tmp_path)]) == 0
    lines = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()}
    assert lines["amos22"][-1] == "part"
    assert lines["vindr-cxr"][-1] == "no"


def test_datatrove_tasks_give_the_same_shards(origin: Path, tmp_path: Path):
    adapter = get_adapter("amos22")
    prepare_dataset(adapter, origin, tmp_path / "one", shard_bytes=10_000)
    plan = plan_preparation(adapter, origin, tmp_path / "two", shard_bytes=10_000)
    local_executor(plan, tasks=2, workers=1).run()
    plan.finish(worked_on=0)
    assert len(_shards(tmp_path / "one")) > 3
    assert _shards(tmp_path / "one") == _shards(tmp_path / "two")
    assert len(list((tmp_path / "two/.preparation/logs").rglob("task_*.log"))) == 2


@pytest.mark.slow
def test_twenty_kills_at_random_points_leave_the_same_bytes(origin: Path, tmp_path: Path):
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    undisturbed, output = tmp_path / "undisturbed", tmp_path / "killed"

    def start(folder: Path) -> BaseProcess:
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=_prepare, args=(origin, folder, there))
        process.start()
        here.recv()
        return process

    def stored() -> int:
        # Folders vanish while they are listed, which os.walk takes and rglob does not.
        names = (name for _, _, files in os.walk(output) for name in files)
        return sum(name.endswith((".arrow", ".parquet", ".json")) for name in names)

    start(undisturbed).join()
    randomness = random.Random(0)
    kills, states = 0, set()
    while kills < 20:
        # The blow falls after so many new files, or soon after them, however fast the machine is.
        wanted = stored() + randomness.randint(0, 4)
        process = start(output)
        while process.is_alive() and stored() < wanted:
            time.sleep(0.001)
        process.join(randomness.uniform(0, 0.02))
        if process.exitcode == 0:
            # Finished before the blow: begin afresh, so that every kill hits a run at work.
            shutil.rmtree(output)
            continue
        process.kill()
        process.join()
        kills += 1
        states.add(tuple(len(list(output.rglob(kind))) for kind in ("*.arrow", "*.parquet", "*.partial")))
    start(output).join()
    assert len(states) > 5, "the kills all hit one point"
    assert _shards(output) == _shards(undisturbed)
    assert not list(output.rglob("*.partial"))


def _prepare(origin: Path, output: Path, ready: Connection) -> None:
    adapter = get_adapter("amos22")
    ready.send(None)
    prepare_dataset(adapter, origin, output, shard_bytes=10_000)


def test_a_prepared_set_is_pushed_private_and_loads_from_the_hub(origin: Path, tmp_path: Path):
    (tmp_path / "hub").mkdir()
    with serve(Hub(tmp_path / "hub", {"hf_tester": "tester"})) as url:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        environment = kept | {
            "HF_ENDPOINT": url,
            "HF_TOKEN": "hf_tester",
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_XET": "1",
        }
        # In a process of its own, since the library reads its environment when it is imported.
        script = (
            "import runpy, sys; from datasets import load_dataset\n"
            "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
            "except SystemExit as end: assert not end.code, end.code\n"
            "print('rows:', load_dataset('tester/amos22', split='train').num_rows)\n"
        )
        program = str(Path(__file__).parents[3] / "data_scripts/prepare.py")
        arguments = ["amos22", "--origin", str(origin), "--limit", "3", "--push-to-hub", "tester/amos22"]
        prelude = f"import sys; sys.argv = {[program, *arguments]!r}\n"
        done = subprocess.run(
            [sys.executable, "-c", prelude + script],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "pushed to tester/amos22, private" in done.stdout
        assert "rows: 2" in done.stdout
