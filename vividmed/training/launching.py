"""Processes and threads of a run that ``accelerate launch`` has started on a CPU.

Two of the launcher's habits are corrected here. ``accelerate launch --cpu --num_processes N`` without MPI starts a
single process, and a run that was meant to be distributed quietly sees 1/N of its batch; and every process gets one
thread unless the user says otherwise, which leaves the other cores idle.
"""

import os
import sys
from collections.abc import Sequence
from typing import Any

import psutil
import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from torch.distributed import run as torchrun
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, get_error_handler

from vividmed.errors import VividMedError

_LAUNCHERS = ("accelerate", "torchrun", "torch.distributed")
_USER_ERROR = 2


def start_processes(target: Sequence[str], arguments: Sequence[str]) -> None:
    """Replace this process by as many processes as the launcher was asked for, unless one is enough.

    Args:
        target: a script, or ``-m`` and a module.
        arguments: its command line.
    """
    number = processes_wanted()
    if number > 1:
        use_all_cores(number)
        launcher = ["-m", "vividmed.training.launching", "--standalone", f"--nproc_per_node={number}"]
        os.execv(sys.executable, [sys.executable, *launcher, *target, *arguments])


def processes_wanted() -> int:
    """Number of processes that ``accelerate launch`` was asked for on a CPU; 1 if it has started them itself."""
    started_alone = (
        "WORLD_SIZE" not in os.environ and os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true"
    )
    options = _accelerate_options() if started_alone else None
    if options is None or options.num_machines not in (None, 1):
        return 1
    return int(options.num_processes or 1)


def check_processes(number: int) -> None:
    """Check that the processes that a launcher started work together.

    Args:
        number: of processes that this one knows of, itself included.

    Raises:
        VividMedError: it knows of none although there are several.
    """
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started > 1 and number == 1:
        raise VividMedError(
            f"{started} processes were started but each works alone, as no GPU was found: on a CPU start with "
            "`accelerate launch --cpu --num_processes N`"
        )


def use_all_cores(processes: int | None = None) -> None:
    """Share the cores among the processes of this machine, if one thread per process was only the launcher's default.

    Args:
        processes: number of processes on this machine; None takes the launcher's.
    """
    if os.environ.get("OMP_NUM_THREADS") != "1" or torch.cuda.is_available() or _threads_were_chosen():
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = max(1, cores // (processes or int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)


def report_to_launcher(error: Exception) -> None:
    """Leave an error where the launcher of several processes looks for it."""
    if "TORCHELASTIC_ERROR_FILE" in os.environ:
        get_error_handler().record_exception(error)


def _threads_were_chosen() -> bool:
    """Whether the user chose the number of threads, by the environment or by an option of the launcher."""
    try:
        parent = psutil.Process(os.getppid())
        command, environment = parent.cmdline(), parent.environ()
    except psutil.Error:
        return True
    if not any(name in word for word in command for name in _LAUNCHERS):
        return True
    chosen = any(word.startswith(("--num_cpu_threads", "--num-cpu-threads")) for word in command)
    return chosen or "OMP_NUM_THREADS" in environment


def _accelerate_options() -> Any:
    """Options of the ``accelerate launch`` that has started this process; None if something else has."""
    command = psutil.Process(os.getppid()).cmdline()
    if "launch" not in command:
        return None
    options, _, _ = _validate_launch_command(
        launch_command_parser().parse_args(command[command.index("launch") + 1 :])
    )
    return options


def main(arguments: Sequence[str]) -> int:
    """Run ``torch.distributed.run``; an error that the user can correct ends in its one line and status 2."""
    try:
        torchrun.main(list(arguments))
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        if failure.exitcode != _USER_ERROR:
            raise
        message = failure.message["message"] if isinstance(failure.message, dict) else failure.message
        sys.stderr.write(f"error: {str(message).partition('Error: ')[2]}\n")
        return _USER_ERROR
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
