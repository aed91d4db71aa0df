"""Training processes end with the launcher that started them."""

import ctypes
import os
import signal
import sys

import psutil

_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux
_LAUNCHERS = ("accelerate", "torchrun", "torch.distributed", "deepspeed", "vividmed.training.launching")


def end_with_launcher() -> None:
    """Send this process SIGTERM when the launcher that started it ends, however it ends.

    ``accelerate launch`` does not pass signals on: terminated by a queue, it would leave its training process running.
    A process that was not started by a launcher is not affected, so that training outlives a closed shell. Only Linux
    has the means; on other systems nothing happens.
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
