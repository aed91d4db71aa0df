"""Training on the stream of a mixture: how its rows are loaded, and where a resumed run continues."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import TrainerState, TrainingArguments

from vividmed.data.sampling.mixture_stream import MixtureStream


def stream_loader(
    stream: MixtureStream,
    args: TrainingArguments,
    *,
    batch_size: int,
    collate: Callable[[list[Any]], dict[str, Any]],
) -> DataLoader:
    """The loader of one process's batches; accelerate must not prepare it, for the stream deals batches out itself.

    Args:
        stream: of this process.
        args: arguments of the loader's workers.
        batch_size: rows per batch of a process.
        collate: turns rows into a batch.
    """
    stream.batch_size = batch_size
    return DataLoader(
        stream,
        batch_size=batch_size,
        collate_fn=collate,
        num_workers=args.dataloader_num_workers,
        pin_memory=args.dataloader_pin_memory,
        persistent_workers=args.dataloader_persistent_workers,
        multiprocessing_context=args.dataloader_multiprocessing_context,
        prefetch_factor=args.dataloader_prefetch_factor,
        # Its own generator: starting workers must not draw from the one whose state a checkpoint restores.
        generator=torch.Generator().manual_seed(args.seed),
    )


def continue_stream(
    stream: MixtureStream, state: TrainerState, rows_per_step: int, epoch: Mapping[str, Any]
) -> dict[str, Any]:
    """Move a stream to the first row that a run has not trained on, in place of loading and skipping batches.

    Args:
        stream: to move.
        state: of the run.
        rows_per_step: rows per optimizer step, over accumulation and processes.
        epoch: arguments of the Trainer's epoch that is about to start.

    Returns:
        Arguments to replace: no batch is to be skipped, and the epoch, which is the whole run, is partly done.
    """
    stream.load_state_dict(stream.state_dict(position=state.global_step * rows_per_step))
    done = state.global_step / state.max_steps
    return {
        "steps_trained_in_current_epoch": 0,
        "epoch": epoch["epoch"] + done,
        "epochs_trained": epoch["epochs_trained"] + done,
    }
