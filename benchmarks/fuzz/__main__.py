"""Try broken inputs and print how they end; the exit status is 1 if one of them was not refused in one line.

python -m benchmarks.fuzz --inputs 10000 --seed 0
python -m benchmarks.fuzz --seed 0 --kind dicom --index 1234   # one input again, with its traceback
"""

import argparse
import math
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

from benchmarks.fuzz.checkpoints import Checkpoints, Configurations
from benchmarks.fuzz.files import Dicom, Images, Nifti
from benchmarks.fuzz.run import Fault, Outcome, fuzz_kind
from benchmarks.fuzz.subject import Subject
from benchmarks.fuzz.texts import Conversations, Tables

SUBJECTS: tuple[type[Subject], ...] = (
    Images,
    Dicom,
    Nifti,
    Conversations,
    Configurations,
    Checkpoints,
    Tables,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    args = _parse(arguments)
    chosen = [subject for subject in SUBJECTS if args.kind in (None, subject.name)]
    shares = sum(subject.share for subject in chosen)
    jobs = []
    for subject in chosen:
        count = math.ceil(args.inputs * subject.share / shares)
        indices = range(count) if args.index is None else [args.index]
        jobs += [(subject, indices[part :: args.processes]) for part in range(args.processes)]
    jobs = [job for job in jobs if job[1]]
    work = partial(fuzz_kind, seed=args.seed, max_seconds=args.max_seconds, max_bytes=args.max_mib << 20)
    if args.processes == 1 or args.index is not None:
        outcomes = [work(*job) for job in jobs]
    else:
        with ProcessPoolExecutor(args.processes, mp_context=get_context("spawn")) as pool:
            outcomes = list(pool.map(work, *zip(*jobs, strict=True)))
    _print_table(chosen, outcomes)
    faults = [fault for outcome in outcomes for fault in outcome.faults]
    _print_faults(faults, args)
    return 1 if faults else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--inputs", type=int, default=1000, help="least number of inputs, of all kinds together"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed; equal seeds give equal inputs")
    parser.add_argument(
        "--kind", choices=[subject.name for subject in SUBJECTS], help="only this kind of input"
    )
    parser.add_argument("--index", type=int, help="only this input of the kind, with its traceback")
    parser.add_argument("--max_seconds", type=float, default=20, help="longest time that one input may take")
    parser.add_argument(
        "--max_mib", type=int, default=1024, help="largest growth of memory per input, in MiB"
    )
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1), help="processes to use")
    args = parser.parse_args(arguments)
    if args.index is not None and args.kind is None:
        parser.error("--index needs --kind")
    return args


def _print_table(chosen: Sequence[type[Subject]], outcomes: Sequence[Outcome]) -> None:
    print(f"{'kind':16}{'tried':>8}{'accepted':>10}{'refused':>9}{'uncaught':>10}{'slowest':>10}")
    total: Counter[str] = Counter()
    for subject in chosen:
        mine = [outcome for outcome in outcomes if outcome.subject == subject.name]
        sums = {
            "tried": sum(outcome.tried for outcome in mine),
            "accepted": sum(outcome.accepted for outcome in mine),
            "refused": sum(outcome.refused for outcome in mine),
            "uncaught": sum(len(outcome.faults) for outcome in mine),
        }
        total.update(sums)
        slowest = max(outcome.slowest for outcome in mine)
        print(_line(subject.name, sums) + f"{slowest:8.1f} s")
    print(_line("all", total))


def _line(name: str, sums: dict[str, int] | Counter[str]) -> str:
    return f"{name:16}{sums['tried']:8}{sums['accepted']:10}{sums['refused']:9}{sums['uncaught']:10}"


def _print_faults(faults: Sequence[Fault], args: argparse.Namespace) -> None:
    groups: dict[tuple[str, str, str], list[Fault]] = {}
    for fault in faults:
        groups.setdefault((fault.subject, fault.place, fault.error.split(":")[0]), []).append(fault)
    for (subject, place, _), members in sorted(groups.items(), key=lambda item: -len(item[1])):
        print(f"\n{len(members)} x {subject} at {place}: {members[0].error}")
        print(f"    again: --seed {args.seed} --kind {subject} --index {members[0].index}")
        if args.index is not None:
            print(members[0].details)


if __name__ == "__main__":
    raise SystemExit(main())
