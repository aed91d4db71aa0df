"""The wheel: built, installed into an environment of its own, and used in an empty folder."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def run(command, folder, **environment):
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """``vividmed`` of an installed wheel, over the packages that the tests run with."""
    folder = tmp_path_factory.mktemp("wheel")
    run([sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder], ROOT)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    python = folder / "venv/bin/python"
    (site,) = (folder / "venv/lib").glob("python*/site-packages")
    # The installed packages, but neither the clone nor its editable installation.
    installed = [Path(entry) for entry in sys.path if entry and Path(entry).name == "site-packages"]
    (site / "packages.pth").write_text("\n".join(map(str, installed)) + "\n")
    install = [
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--force-reinstall",
    ]
    run([sys.executable, *install, wheel], folder)
    location = run([python, "-c", "import vividmed; print(vividmed.__file__)"], folder)
    assert Path(location.strip()).is_relative_to(site)
    return folder / "venv/bin/vividmed"


def test_installed_wheel_trains_lists_and_previews_in_an_empty_folder(command, tmp_path):
    assert "train" in run([command, "--help"], tmp_path)
    assert "amos22" in run([command, "prepare", "--list"], tmp_path)
    # As `vividmed train --stage vlm --max_steps 5`, on few rows.
    few = ["--max_train_samples", "8", "--max_eval_samples", "2", "--generation_samples", "1"]
    few += ["--per_device_train_batch_size", "2", "--generation_max_new_tokens", "4"]
    trained = run(
        [command, "train", "--stage", "vlm", "--max_steps", "5", *few], tmp_path, CUDA_VISIBLE_DEVICES=""
    )
    assert "outputs/vlm" in trained
    assert (tmp_path / "outputs/vlm/model.safetensors").is_file()
    assert "## Training data" in (tmp_path / "outputs/vlm/README.md").read_text()


def test_installed_wheel_previews_a_prepared_data_set(command, tmp_path):
    from tests.fixtures.hub.folders import prepare

    prepare(tmp_path / "set")
    printed = run([command, "data", "preview", "set", "-n", "4"], tmp_path)
    assert "train: 4 rows" in printed
    assert (tmp_path / "preview.png").stat().st_size > 5000
