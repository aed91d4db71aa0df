import errno
import json
import resource

import pytest
from safetensors import SafetensorError
from transformers import TrainerCallback

from tests.fixtures.training import small_processor, small_trainer
from vividmed.errors import VividMedError
from vividmed.files import write_atomically
from vividmed.training.loading import load_model
from vividmed.training.runs.checkpointing import (
    MANIFEST,
    atomic_checkpoint,
    find_fault,
    list_checkpoints,
    newest_complete_checkpoint,
    remove_old_checkpoints,
    remove_partial_checkpoints,
    resolve_checkpoint,
)
from vividmed.training.settings.model_arguments import ModelArguments


def nothing() -> None:
    """Stands in for the barrier of a single process."""


def save(folder, step, content=b"weights"):
    with atomic_checkpoint(folder, step, is_writer=True, barrier=nothing) as partial:
        (partial / "model.safetensors").write_bytes(content)
        (partial / "shards").mkdir()
        (partial / "shards" / "part").write_bytes(b"part")
    return folder / f"checkpoint-{step}"


def save_and_fail(folder, step, error):
    with atomic_checkpoint(folder, step, is_writer=True, barrier=nothing) as partial:
        (partial / "model.safetensors").write_bytes(b"half")
        raise error


def test_finished_checkpoint_is_complete_and_listed(tmp_path):
    folder = save(tmp_path, 5)
    assert find_fault(folder) is None
    files = json.loads((folder / MANIFEST).read_text())["files"]
    assert files["model.safetensors"]["bytes"] == 7
    assert set(files) == {"model.safetensors", "shards/part"}
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-5"]


def test_interrupted_checkpoint_is_not_there(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        save_and_fail(tmp_path, 5, KeyboardInterrupt())
    assert list_checkpoints(tmp_path) == []
    remove_partial_checkpoints(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_newest_complete_checkpoint_is_chosen_by_step_and_broken_ones_are_passed_over(tmp_path):
    older, newer, newest = save(tmp_path, 9), save(tmp_path, 10), save(tmp_path, 100)
    (newest / "model.safetensors").write_bytes(b"half")
    assert newest_complete_checkpoint(tmp_path) == newer
    (newer / "model.safetensors").write_bytes(b"weighty")
    assert newest_complete_checkpoint(tmp_path) == older
    (older / MANIFEST).unlink()
    assert newest_complete_checkpoint(tmp_path) is None
    assert len(list_checkpoints(tmp_path)) == 3


@pytest.mark.parametrize(
    ("break_it", "fault"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"w"), "has 1 bytes instead of 7"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"WEIGHTS"), "has changed"),
        (lambda folder: (folder / MANIFEST).write_text("{"), "cannot be read"),
        (lambda folder: (folder / MANIFEST).unlink(), "is missing"),
    ],
)
def test_broken_checkpoint_asked_for_by_name_is_refused_with_its_fault(tmp_path, break_it, fault):
    folder = save(tmp_path, 5)
    assert resolve_checkpoint(tmp_path, str(folder)) == folder
    break_it(folder)
    with pytest.raises(VividMedError, match=fault):
        resolve_checkpoint(tmp_path, str(folder))


def test_latest_needs_a_checkpoint_and_auto_does_not(tmp_path):
    assert resolve_checkpoint(tmp_path, "auto") is None
    with pytest.raises(VividMedError, match="has no complete checkpoint"):
        resolve_checkpoint(tmp_path, "latest")
    folder = save(tmp_path, 5)
    assert resolve_checkpoint(tmp_path, "latest") == resolve_checkpoint(tmp_path, "auto") == folder


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError(
            "[enforce fail at inline_container.cc:668] . PytorchStreamWriter failed writing file data/1"
        ),
    ],
)
def test_full_disk_gives_one_message_and_keeps_the_earlier_checkpoint(tmp_path, error):
    kept = save(tmp_path, 5)
    with pytest.raises(VividMedError) as caught:
        save_and_fail(tmp_path, 10, error)
    message = str(caught.value)
    assert "checkpoint-10 could not be written" in message
    assert f"{kept} is kept" in message
    assert "--resume_from_checkpoint" in message
    assert "\n" not in message
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-5"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EROFS, "Read-only file system"),
        RuntimeError("[enforce fail at inline_container.cc:862] . open file failed with error code: 28"),
        SafetensorError("Error while serializing: I/O error: File too large (os error 27)"),
    ],
)
def test_full_disk_in_the_final_save_leaves_what_was_there(tmp_path, monkeypatch, error):
    trainer = small_trainer(tmp_path, max_steps=1, save_steps=1)
    trainer.train()
    (tmp_path / "model.safetensors").write_bytes(b"earlier")

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(trainer.processing_class, "save_pretrained", fail)
    with pytest.raises(VividMedError, match=r"could not be written: .*checkpoint-1 is kept") as caught:
        trainer.save_final()
    assert "\n" not in str(caught.value)
    assert (tmp_path / "model.safetensors").read_bytes() == b"earlier"
    assert not list(tmp_path.glob(".*.partial"))


@pytest.mark.parametrize(
    ("error", "is_ours"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (PermissionError(errno.EACCES, "Permission denied", "RUN/runs/events"), True),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/data/image.png"), False),
    ],
)
def test_disk_that_fills_up_while_logs_are_written_is_one_line(tmp_path, error, is_ours):
    if error.filename:
        error.filename = error.filename.replace("RUN", str(tmp_path))

    class Writer(TrainerCallback):
        def on_log(self, *args, **kwargs):
            raise error

    trainer = small_trainer(tmp_path, max_steps=1)
    trainer.add_callback(Writer())
    with pytest.raises(
        VividMedError if is_ours else FileNotFoundError, match="written" if is_ours else "image.png"
    ):
        trainer.train()


@pytest.fixture
def small_files():
    """The operating system refuses files above 100 kB, so that real writers fail as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("save", ["train", "save_final"])
def test_writers_of_torch_and_safetensors_that_fail_for_real_end_in_one_line(tmp_path, small_files, save):
    trainer = small_trainer(tmp_path, max_steps=2, save_steps=1)
    with pytest.raises(
        VividMedError, match=r"could not be written: .*too large.*there is no earlier checkpoint"
    ):
        getattr(trainer, save)()
    assert not list(tmp_path.rglob("*.safetensors"))
    assert not list(tmp_path.glob(".*.partial"))


def test_base_model_that_does_not_fit_on_the_disk_ends_in_one_line(tmp_path, small_files):
    processor = small_processor()
    arguments = ModelArguments(use_peft=True)
    with pytest.raises(VividMedError, match="base_model could not be written"):
        load_model(arguments, processor, base_folder=tmp_path / "base_model", seed=0)
    assert not list(tmp_path.iterdir())


def test_full_disk_while_training_ends_the_run_with_the_earlier_checkpoint_in_place(tmp_path, monkeypatch):
    trainer = small_trainer(tmp_path, max_steps=4, save_steps=2)
    save_rng = trainer._save_rng_state

    def fill_the_disk(folder):
        if trainer.state.global_step > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        save_rng(folder)

    monkeypatch.setattr(trainer, "_save_rng_state", fill_the_disk)
    with pytest.raises(
        VividMedError, match=r"checkpoint-4 could not be written: no space left.*checkpoint-2 is kept"
    ):
        trainer.train()
    assert newest_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-2"]


def test_errors_that_have_nothing_to_do_with_writing_pass_through(tmp_path):
    with pytest.raises(ZeroDivisionError):
        save_and_fail(tmp_path, 10, ZeroDivisionError())


def test_saving_a_step_again_replaces_its_checkpoint(tmp_path):
    save(tmp_path, 5, b"first")
    folder = save(tmp_path, 5, b"second")
    assert (folder / "model.safetensors").read_bytes() == b"second"
    assert find_fault(folder) is None


def test_old_checkpoints_go_by_step_and_the_best_stays(tmp_path):
    folders = [save(tmp_path, step) for step in (2, 4, 10, 20)]
    remove_old_checkpoints(tmp_path, keep=2, best=str(folders[0]))
    assert list_checkpoints(tmp_path) == [folders[0], folders[3]]
    remove_old_checkpoints(tmp_path, keep=None, best=None)
    assert list_checkpoints(tmp_path) == [folders[0], folders[3]]


def test_file_is_replaced_at_once(tmp_path):
    path = tmp_path / "baseline.json"
    write_atomically(path, "first")
    write_atomically(path, "second")
    assert path.read_text() == "second"
    assert list(tmp_path.iterdir()) == [path]
