"""The processes that ``accelerate launch --cpu --num_processes N`` promises.

Without MPI accelerate starts a single process for this command, whatever N is, and a run that was meant to be
distributed quietly sees 1/N of its batch. The processes are started here instead, by PyTorch's own launcher.
"""

import os
import sys
from collections.abc import Sequence

import psutil
from accelerate.commands.launch import _validate_launch_command, launch_command_parser


def processes_wanted() -> int:
    """How many processes the launcher that started this one was asked for on a CPU, 1 if it started them itself."""
    started_alone = (
        "WORLD_SIZE" not in os.environ and os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true"
    )
    if not started_alone:
        return 1
    command = psutil.Process(os.getppid()).cmdline()
    if "launch" not in command:
        return 1
    arguments, _, _ = _validate_launch_command(
        launch_command_parser().parse_args(command[command.index("launch") + 1 :])
    )
    return int(arguments.num_processes or 1) if arguments.num_machines in (None, 1) else 1


def start_processes(program: Sequence[str], arguments: Sequence[str]) -> None:
    """Replace this process by a launcher of as many processes as were asked for, unless one is enough.

    Args:
        program: what each process runs: the path of a script, or ``-m`` and a module, with leading arguments.
        arguments: arguments of the run.
    """
    number = processes_wanted()
    if number > 1:
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={number}"]
        os.execv(sys.executable, [sys.executable, *launcher, *program, *arguments])
