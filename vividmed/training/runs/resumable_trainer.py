"""A Trainer whose runs survive being stopped: complete checkpoints, exact resuming, no broken weights."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Trainer
from transformers.trainer import TRAINER_STATE_NAME, TRAINING_ARGS_NAME
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import TrainOutput

from vividmed.data.terms import PROVENANCE_FILE, DatasetTerms, Terms, combine_terms, write_provenance
from vividmed.errors import VividMedError
from vividmed.files import sync_folder, write_atomically
from vividmed.hub.publish import publish_model
from vividmed.training.runs.checkpointing import (
    atomic_checkpoint,
    checkpoint_folder,
    readable_log_errors,
    readable_write_errors,
    remove_old_checkpoints,
    write_manifest,
)
from vividmed.training.runs.exact_resume import RUN_RECORD, check_exact, run_record
from vividmed.training.runs.provenance import model_terms, rows_terms
from vividmed.training.runs.termination import StopOnTermination
from vividmed.training.settings.arguments import VividMedTrainingArguments
from vividmed.training.step_statistics import StepStatistics

_STOPPED_BY_SIGTERM = 128 + 15


class ResumableTrainer(Trainer):
    """``transformers.Trainer`` for runs that may be killed, terminated or resumed at any moment.

    - Checkpoints and the final model appear complete or not at all, and a full disk ends in one line.
    - A run resumes exactly or is refused, naming what differs; see :mod:`vividmed.training.runs.exact_resume`. A run that
      has reached its last step trains no further.
    - SIGTERM ends training after the current step, with a checkpoint.
    - Weights that are not finite are never written.
    - Every checkpoint carries the terms of all data that its weights come from.

    Args:
        provenance: terms of everything that the weights come from; by default those of the rows' sources.
        **options: passed to ``Trainer``.
    """

    args: VividMedTrainingArguments
    statistics: StepStatistics

    def __init__(self, *, provenance: Sequence[Terms] | None = None, **options: Any):
        try:
            super().__init__(**options)
        except VividMedError:
            raise
        except (ValueError, ImportError) as error:
            # The Trainer's own checks of arguments that it cannot use together, or not on this machine.
            raise VividMedError(f"arguments: {' '.join(str(error).split())}") from error
        if provenance is None:
            provenance = [] if self.train_dataset is None else rows_terms(self.train_dataset)
        self.provenance = [DatasetTerms.of(terms) for terms in provenance]
        self._termination = StopOnTermination(self.accelerator)
        self.add_callback(self._termination)
        self._run_record: dict[str, Any] = {}

    # Training

    def train(
        self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any
    ) -> TrainOutput:
        """Like ``Trainer.train``, but safe to call after ``evaluate``.

        Raises:
            VividMedError: the checkpoint cannot be resumed exactly, or the disk cannot be written.
            SystemExit: the process received SIGTERM; a checkpoint of the last step has been written.
        """
        if self.model_wrapped is self.model:
            # Evaluating marks the model as prepared, and accelerate would then train it without joining gradients.
            self.model.__dict__.pop("_is_accelerate_prepared", None)
        with readable_log_errors(self.args.folder), self._termination:
            output = super().train(resume_from_checkpoint, *args, **kwargs)
        if self._termination.stopped:
            raise SystemExit(_STOPPED_BY_SIGTERM)
        return output

    def _init_training_state(
        self,
        max_steps: int,
        num_update_steps_per_epoch: int,
        num_train_epochs: int,
        resume_from_checkpoint: str | None,
        trial: Any,
    ) -> tuple[int, int]:
        self._run_record = run_record(self, max_steps)
        if resume_from_checkpoint is not None:
            checkpoint = Path(resume_from_checkpoint)
            check_exact(checkpoint, self._run_record, allow_inexact=self.args.allow_inexact_resume)
            self.provenance = combine_terms([*self.provenance, *model_terms(checkpoint)])
        return super()._init_training_state(
            max_steps, num_update_steps_per_epoch, num_train_epochs, resume_from_checkpoint, trial
        )

    def _run_epoch(self, **kwargs: Any) -> None:
        """Train an epoch, unless the run was resumed at its last step, where the Trainer would take one step more."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(**kwargs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, except for the summary of a run that was already finished: there is nothing to sum up."""
        if "train_loss" not in logs or self.state.global_step > self._initial_global_step:
            super().log(logs, start_time)

    # Saving

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self.check_finite()
        self.store_flos()
        run_folder, step = self.args.folder, self.state.global_step
        barrier = self.accelerator.wait_for_everyone
        if self.state.best_global_step is not None:
            best = checkpoint_folder(run_folder, self.state.best_global_step)
            if best.is_dir() or self.state.best_global_step == step:
                self.state.best_model_checkpoint = str(best)
        with atomic_checkpoint(run_folder, step, is_writer=self.args.should_save, barrier=barrier) as folder:
            self.save_model(str(folder), _internal_call=True)
            if not self.args.save_only_model:
                self._save_optimizer_and_scheduler(str(folder))
                self._save_scaler(str(folder))
                self._save_rng_state(str(folder))
            if self.args.should_save:
                self._save_state(folder)
                self._save_provenance(folder)
                write_atomically(folder / RUN_RECORD, json.dumps(self._run_record, indent=1))
        if self.args.should_save:
            remove_old_checkpoints(run_folder, self.args.save_total_limit, self.state.best_model_checkpoint)

    def _save_state(self, folder: Path) -> None:
        exportable = [
            cb for cb in [*self.callback_handler.callbacks, self.control] if isinstance(cb, ExportableState)
        ]
        for callback in exportable:
            self.state.stateful_callbacks[type(callback).__name__] = callback.state()
        self.state.save_to_json(str(folder / TRAINER_STATE_NAME))

    def _save_provenance(self, folder: Path) -> None:
        if self.provenance:
            write_provenance(folder, self.provenance)

    def check_finite(self) -> None:
        """Make sure that losses and trainable weights are finite, on every process.

        The weights need a look of their own: one gradient can break them after a loss that was finite.

        Raises:
            VividMedError: they are not; nothing may be saved.
        """
        self.statistics.check()
        finite = [
            (parameter.to_local() if hasattr(parameter, "to_local") else parameter).isfinite().all()
            for parameter in self.model.parameters()
            if parameter.requires_grad
        ]
        if not finite:
            return
        broken = self.accelerator.reduce((~torch.stack(finite).all()).float(), reduction="sum")
        if broken.item():
            raise VividMedError(
                f"step {self.state.global_step}: the weights are no longer finite and are not saved; "
                "lower --learning_rate or --max_grad_norm and resume with --resume_from_checkpoint"
            )

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            # A pickle, and the only file that is unsafe to load; config.yaml has the arguments.
            folder = Path(output_dir) if output_dir else self.args.folder
            (folder / TRAINING_ARGS_NAME).unlink(missing_ok=True)

    def save_final(self) -> None:
        """Put the model and its processor into the output folder itself; each file is complete or as it was before.

        Raises:
            VividMedError: the weights are not finite, or the disk cannot be written.
        """
        self.check_finite()
        folder = self.args.folder
        aside = folder / ".final.partial"
        with readable_write_errors(folder):
            try:
                if self.args.should_save:
                    shutil.rmtree(aside, ignore_errors=True)
                self.accelerator.wait_for_everyone()
                self.write_final(aside)
                self.accelerator.wait_for_everyone()
                if self.args.should_save:
                    self._save_provenance(aside)
                    write_manifest(aside)
                    # Weights never lie beside the provenance of others: without any they are private.
                    (folder / PROVENANCE_FILE).unlink(missing_ok=True)
                    for path in sorted(aside.iterdir(), key=lambda path: path.name == PROVENANCE_FILE):
                        path.replace(folder / path.name)
                    sync_folder(folder)
            finally:
                if self.args.should_save:
                    shutil.rmtree(aside, ignore_errors=True)

    def write_final(self, folder: Path) -> None:
        """Write what the run leaves behind; every process takes part."""
        self.save_model(str(folder), _internal_call=True)

    def push_to_hub(self, *args: Any, **kwargs: Any) -> None:
        """Upload what the output folder contains and may be shared; see :func:`vividmed.hub.publish.publish_model`.

        The Trainer's own method would upload everything, answers to the data's questions included.
        """
        if self.is_world_process_zero():
            publish_model(self.args.folder, self.hub_model_id, public=self.args.hub_private_repo is False)
