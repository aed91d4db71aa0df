"""Cases of a planned preparation, processed in this process or in a pool of workers."""

import os
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from threading import Thread

import torch
from tqdm import tqdm

from vividmed.data.preparation.case_store import process_case
from vividmed.data.preparation.plan import PlannedCase, Shard
from vividmed.data.preparation.preparation import Preparation
from vividmed.errors import VividMedError


def run_here(plan: Preparation, bar: tqdm) -> int:
    """Process all unfinished cases, one after the other.

    Returns:
        Number of cases processed.
    """
    count = 0
    for shard, cases in _unfinished(plan, bar):
        for item in cases:
            plan.process(shard, item)
            bar.update()
        plan.store.write(shard)
        count += len(cases)
    return count


def run_in_pool(plan: Preparation, num_proc: int, bar: tqdm) -> int:
    """Process all unfinished cases in worker processes.

    Cases are handed out in the order of the shards, a few more than there are workers at a time; a shard is written as
    soon as its cases are done.

    Returns:
        Number of cases processed.

    Raises:
        VividMedError: a worker was killed.
    """
    count = 0
    waiting: dict[Future[None], Shard] = {}
    left: dict[str, int] = {}

    def settle(at_most: int) -> None:
        while len(waiting) > at_most:
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                shard = waiting.pop(future)
                future.result()
                bar.update()
                left[shard.name] -= 1
                if not left[shard.name]:
                    plan.store.write(shard)

    # Workers are forked from a process without threads, which imports the libraries once for all of them.
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(num_proc, mp_context=context, initializer=_start_worker) as pool:
        try:
            for shard, cases in _unfinished(plan, bar):
                left[shard.name] = len(cases)
                if not cases:
                    plan.store.write(shard)
                for item in cases:
                    settle(2 * num_proc)
                    folder = plan.store.pending(shard.name)
                    future = pool.submit(_process, plan.adapter, item, plan.origin, plan.processing, folder)
                    waiting[future] = shard
                count += len(cases)
            settle(0)
        except BrokenProcessPool as error:
            raise VividMedError(
                "a worker was killed, probably because memory ran out; run again with a smaller --num-proc to resume"
            ) from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return count


def _unfinished(plan: Preparation, bar: tqdm) -> Iterator[tuple[Shard, list[PlannedCase]]]:
    for shard in plan.shards:
        cases = plan.store.to_do(shard)
        bar.update(len(shard.cases) - len(cases or ()))
        if cases is not None:
            yield shard, cases


def _process(*arguments: object) -> None:
    process_case(*arguments)  # type: ignore[arg-type]


def _start_worker() -> None:
    # Workers share the cores; threads of their libraries would only compete.
    torch.set_num_threads(1)
    # A worker whose parent was killed would wait for work forever.
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
