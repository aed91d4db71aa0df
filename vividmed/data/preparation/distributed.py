"""A preparation on several machines by datatrove: each task finishes its own shards; nothing is exchanged but files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vividmed.data.preparation.prepare import Preparation
from vividmed.errors import VividMedError

try:
    from datatrove.executor import LocalPipelineExecutor, SlurmPipelineExecutor
    from datatrove.executor.base import PipelineExecutor
    from datatrove.pipeline.base import PipelineStep
except ImportError as error:
    raise VividMedError(
        "running on several machines needs datatrove; install vividmed[distributed]"
    ) from error


class PrepareShards(PipelineStep):
    """Finish every shard whose place in the plan is the task's own, modulo the number of tasks.

    Args:
        plan: Made once, before the tasks start.
    """

    name = "Prepare shards"
    type = "vividmed"

    def __init__(self, plan: Preparation) -> None:
        super().__init__()
        self.plan = plan

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        for shard in self.plan.shards[rank::world_size]:
            self.stat_update("cases", value=self.plan.work_on(shard))
        yield from ()


def local_executor(plan: Preparation, *, tasks: int) -> PipelineExecutor:
    """Tasks as processes of this machine, to try a distributed run."""
    return LocalPipelineExecutor(
        pipeline=[PrepareShards(plan)],
        tasks=tasks,
        workers=tasks,
        logging_dir=str(_logs(plan)),
        skip_completed=False,
    )


def slurm_executor(
    plan: Preparation, *, tasks: int, partition: str, time: str, memory_gb: int
) -> PipelineExecutor:
    """Tasks as jobs of a Slurm array; ``run()`` submits them and returns.

    Args:
        plan: Its origin and output lie on a file system that all machines share.
        tasks: Number of jobs.
        partition: Of the cluster.
        time: Limit of a job, ``HH:MM:SS``.
        memory_gb: Of a job.
    """
    # datatrove marks tasks as completed by their number; the shards themselves know better.
    return SlurmPipelineExecutor(
        pipeline=[PrepareShards(plan)],
        tasks=tasks,
        time=time,
        partition=partition,
        mem_per_cpu_gb=memory_gb,
        job_name=f"prepare-{plan.adapter.name}",
        logging_dir=str(_logs(plan)),
        skip_completed=False,
    )


def _logs(plan: Preparation) -> Path:
    return plan.store.notes / "logs"
