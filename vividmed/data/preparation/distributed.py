"""Runs a preparation on several machines with datatrove: each task finishes its own shards."""

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
        "running on several machines needs datatrove; pip install 'vividmed[distributed]'"
    ) from error


class PrepareShards(PipelineStep):
    """Finishes the shards of one task: those whose place in the plan equals its rank, modulo the number of tasks.

    Args:
        plan: the plan, made once before the tasks start.
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


def local_executor(plan: Preparation, *, tasks: int, workers: int | None = None) -> PipelineExecutor:
    """Executor that runs tasks on this machine, to try a distributed run.

    Args:
        plan: the plan.
        tasks: number of tasks.
        workers: number of tasks that run at the same time, each in a process of its own; None for all, 1 for one after
            the other in this process.
    """
    return LocalPipelineExecutor(
        pipeline=[PrepareShards(plan)],
        tasks=tasks,
        workers=tasks if workers is None else workers,
        logging_dir=str(_logs(plan)),
        skip_completed=False,
    )


def slurm_executor(
    plan: Preparation, *, tasks: int, partition: str, time: str, memory_gb: int
) -> PipelineExecutor:
    """Executor that runs tasks as jobs of a Slurm array; its ``run()`` submits them and returns.

    Args:
        plan: the plan; its origin and output must be on a file system that all machines share.
        tasks: number of jobs.
        partition: partition of the cluster.
        time: time limit per job, ``HH:MM:SS``.
        memory_gb: memory per job.
    """
    # datatrove would skip tasks by their number, but whether work is left depends on the shards.
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
