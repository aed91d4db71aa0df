"""How training ends with a checkpoint when the process is asked to terminate."""

import signal
import threading
from typing import Any

import torch
from accelerate import Accelerator
from transformers import TrainerCallback, TrainerControl, TrainerState
from transformers.utils import logging

logger = logging.get_logger(__name__)


class StopOnTermination(TrainerCallback):
    """Ends training at the next step, with a checkpoint, when the process receives SIGTERM.

    A second signal ends the process at once. Processes of a distributed run compare every few steps whether one of
    them received the signal, so that all of them stop at the same step.

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
