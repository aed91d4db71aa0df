"""How a training process ends with its launcher, and with a checkpoint when it is asked to."""

import ctypes
import os
import signal
import sys
import threading
from typing import Any

import psutil
import torch
from accelerate import Accelerator
from transformers import TrainerCallback, TrainerControl, TrainerState
from transformers.utils import logging

logger = logging.get_logger(__name__)

_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux
_LAUNCHERS = ("accelerate", "torchrun", "torch.distributed", "deepspeed")


def end_with_launcher() -> None:
    """Send this process SIGTERM when the launcher that started it ends, however it ends.

    ``accelerate launch`` does not pass signals on: terminated by a queue, it would leave its training process running.
    A process that was not started by a launcher is left alone, so that training outlives a closed shell. On other
    systems than Linux nothing happens.
    """
    parent = os.getppid()
    if sys.platform != "linux" or not _is_launcher(parent):
        return
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
    if os.getppid() != parent:  # the launcher ended in between
        os.kill(os.getpid(), signal.SIGTERM)


def _is_launcher(process: int) -> bool:
    try:
        command = psutil.Process(process).cmdline()
    except psutil.Error:
        return False
    return any(name in part for part in command for name in _LAUNCHERS)


class StopOnTermination(TrainerCallback):
    """Ends training at the next step, with a checkpoint, when the process receives SIGTERM.

    A second signal ends the process at once. Processes of a distributed run compare notes every few steps, so that
    all of them stop at the same one.

    Args:
        accelerator: reduces over the processes.
        check_every: steps between comparisons in a distributed run.
    """

    def __init__(self, accelerator: Accelerator, check_every: int = 10):
        self.accelerator = accelerator
        self.check_every = check_every
        self.received = False
        self.stopped = False
        self._earlier: Any = None

    def __enter__(self) -> "StopOnTermination":
        if threading.current_thread() is threading.main_thread():
            self._earlier = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._earlier is not None:
            signal.signal(signal.SIGTERM, self._earlier)

    def _note(self, number: int, frame: Any) -> None:
        logger.warning("SIGTERM: training stops after this step, with a checkpoint")
        self.received = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._agreed(state.global_step):
            self.stopped = True
            control.should_save = control.should_training_stop = True

    def _agreed(self, step: int) -> bool:
        if self.accelerator.num_processes == 1:
            return self.received
        if step % self.check_every:
            return False
        received = torch.tensor(float(self.received), device=self.accelerator.device)
        return bool(self.accelerator.reduce(received, reduction="sum").item())
