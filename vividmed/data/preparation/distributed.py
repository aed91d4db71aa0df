"""Runs work in shards on several machines with datatrove: each task finishes its own shards."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from vividmed.errors import VividMedError

try:
    from datatrove.executor import LocalPipelineExecutor, SlurmPipelineExecutor
    from datatrove.executor.base import PipelineExecutor
    from datatrove.pipeline.base import PipelineStep
except ImportError as error:
    raise VividMedError(
        "running on several machines needs datatrove; pip install 'vividmed[distributed]'"
    ) from error


class ShardedWork(Protocol):
    """Work in shards: a preparation, or a step of making grounded reports.

    Attributes:
        name: name of the work, for job names.
        logs: folder for the logs of executors.
        shards: shards that any process can finish on its own.
    """

    @property
    def name(self) -> str: ...
    @property
    def logs(self) -> Path: ...
    @property
    def shards(self) -> Sequence[Any]: ...
    def work_on(self, shard: Any) -> int:
        """Finish a shard, and return how many pieces of work it took."""


class FinishShards(PipelineStep):
    """Finishes the shards of one task: those whose place in the plan equals its rank, modulo the number of tasks.

    Args:
        plan: the plan, made once before the tasks start.
    """

    name = "Finish shards"
    type = "vividmed"

    def __init__(self, plan: ShardedWork) -> None:
        super().__init__()
        self.plan = plan

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        for shard in self.plan.shards[rank::world_size]:
            self.stat_update("cases", value=self.plan.work_on(shard))
        yield from ()


def local_executor(plan: ShardedWork, *, tasks: int, workers: int | None = None) -> PipelineExecutor:
    """Executor that runs tasks on this machine, to try a distributed run.

    Args:
        plan: the plan.
        tasks: number of tasks.
        workers: number of tasks that run at the same time, each in a process of its own; None for all, 1 for one after
            the other in this process.
    """
    return LocalPipelineExecutor(
        pipeline=[FinishShards(plan)],
        tasks=tasks,
        workers=tasks if workers is None else workers,
        logging_dir=str(plan.logs),
        skip_completed=False,
    )


def slurm_executor(
    plan: ShardedWork, *, tasks: int, partition: str, time: str, memory_gb: int
) -> PipelineExecutor:
    """Executor that runs tasks as jobs of a Slurm array; its ``run()`` submits them and returns.

    Args:
        plan: the plan; its input and output must be on a file system that all machines share.
        tasks: number of jobs.
        partition: partition of the cluster.
        time: time limit per job, ``HH:MM:SS``.
        memory_gb: memory per job.
    """
    # datatrove would skip tasks by their number, but whether work is left depends on the shards.
    return SlurmPipelineExecutor(
        pipeline=[FinishShards(plan)],
        tasks=tasks,
        time=time,
        partition=partition,
        mem_per_cpu_gb=memory_gb,
        job_name=f"vividmed-{plan.name}",
        logging_dir=str(plan.logs),
        skip_completed=False,
    )
