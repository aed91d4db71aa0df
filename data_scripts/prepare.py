"""Prepare an original data set as a Hugging Face data set.

    python data_scripts/prepare.py --list [--origin DIR_OF_ALL_ORIGINS]
    python data_scripts/prepare.py amos22 --origin data/origin/amos22 --verify
    python data_scripts/prepare.py amos22 --origin data/origin/amos22 --output data/amos22 --num-proc 8
    python data_scripts/prepare.py amos22 --origin data/origin/amos22 --push-to-hub NAMESPACE/amos22

Killed at any point and started again it goes on; a second run with unchanged input does nothing. Cases that fail are
listed in failures.csv. Exit status: 0 all cases are prepared, 1 some failed, 2 wrong arguments or input. See docs/data.md.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1])
)  # found from a clone, whatever the working folder

from huggingface_hub.constants import HF_HOME

from data_scripts.card import write_card
from vividmed.data.adapters import Adapter, get_adapter
from vividmed.data.preparation.case_rows import Processing
from vividmed.data.preparation.catalogue import catalogue
from vividmed.data.preparation.integrity import verify_origin
from vividmed.data.preparation.intensity import WINDOWS
from vividmed.data.preparation.prepare import PreparationResult, plan_preparation, prepare_dataset
from vividmed.data.raw.case import SPLITS
from vividmed.errors import VividMedError
from vividmed.hub.publish import check_audience, publish_dataset

_SHOWN = 10


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; combinations that make no sense end with status 2."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("name", nargs="?", help="data set; see --list")
    parser.add_argument("--list", action="store_true", help="print the table of data sets")
    parser.add_argument("--verify", action="store_true", help="check that the origin is complete, and stop")
    parser.add_argument("--origin", type=Path, help="folder of the original data set")
    parser.add_argument("--output", type=Path, help="folder of the prepared data set")
    parser.add_argument("--push-to-hub", metavar="REPO", help="upload the result to this repository, private")
    audience = parser.add_mutually_exclusive_group()
    audience.add_argument(
        "--public", action="store_true", help="make the repository public, if the terms allow it"
    )
    audience.add_argument(
        "--gated", action="store_true", help="let everyone see it, and read it whom you let in, one by one"
    )
    parser.add_argument(
        "--num-proc", type=_positive, default=1, metavar="N", help="worker processes, one case each"
    )
    parser.add_argument("--limit", type=_positive, metavar="K", help="prepare the first K cases")
    parser.add_argument("--split", choices=SPLITS, help="prepare one split")
    parser.add_argument("--window", choices=sorted(WINDOWS), help="window for CT in place of quantiles")
    parser.add_argument(
        "--retry-failed", action="store_true", help="try failed cases again although nothing changed"
    )
    cluster = parser.add_argument_group("several machines (vividmed[distributed])")
    cluster.add_argument(
        "--tasks", type=_positive, metavar="N", help="number of tasks; shards are dealt to them"
    )
    cluster.add_argument("--slurm", metavar="PARTITION", help="submit the tasks to Slurm; else they run here")
    cluster.add_argument("--time", default="24:00:00", help="time limit of a Slurm job (24:00:00)")
    cluster.add_argument("--memory-gb", type=_positive, default=16, help="memory of a Slurm job (16)")
    args = parser.parse_args(arguments)
    if args.list:
        return args
    if args.name is None or args.origin is None:
        parser.error("name a data set and its --origin, or use --list")
    if not args.verify and args.output is None and args.push_to_hub is None:
        parser.error("give --output, --push-to-hub or both")
    if (args.public or args.gated) and args.push_to_hub is None:
        parser.error("--public and --gated need --push-to-hub")
    if args.slurm and args.tasks is None:
        parser.error("--slurm needs --tasks")
    return args


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    args = parse(arguments)
    try:
        if args.list:
            print(catalogue(args.origin))
            return 0
        adapter = get_adapter(args.name)
        if args.verify:
            report = verify_origin(adapter, args.origin)
            print(report.table())
            return 0 if report.complete else 1
        return _prepare(adapter, args)
    except VividMedError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130


def _prepare(adapter: Adapter, args: argparse.Namespace) -> int:
    check_audience(adapter, public=args.public, gated=args.gated)
    processing = Processing(window=args.window)
    output = args.output or Path(HF_HOME) / "vividmed" / "prepared" / adapter.name
    choices = {
        "processing": processing,
        "only": args.split,
        "limit": args.limit,
        "retry_failed": args.retry_failed,
    }
    if args.tasks is None:
        result = prepare_dataset(
            adapter, args.origin, output, **choices, num_proc=args.num_proc, progress=True
        )
    else:
        from vividmed.data.preparation.distributed import local_executor, slurm_executor

        plan = plan_preparation(adapter, args.origin, output, **choices)
        tasks = min(args.tasks, max(1, len(plan.shards)))
        if args.slurm:
            slurm_executor(
                plan, tasks=tasks, partition=args.slurm, time=args.time, memory_gb=args.memory_gb
            ).run()
            print(
                "submitted; when the jobs are done, run the same command without --slurm and --tasks to finish"
            )
            return 0
        local_executor(plan, tasks=tasks).run()
        result = plan.finish(worked_on=len(plan.listing.cases))
    write_card(adapter, processing, result)
    _report(result)
    if args.push_to_hub:
        published = publish_dataset(
            output, args.push_to_hub, terms=adapter, public=args.public, gated=args.gated
        )
        print(f"pushed to {published.repo_id}, {published.visibility}, revision {published.revision}")
    return 1 if result.failed else 0


def _report(result: PreparationResult) -> None:
    rows = ", ".join(f"{number} {split}" for split, number in result.rows.items()) or "none"
    done = "nothing had changed" if not result.worked_on else f"{result.worked_on} cases worked on"
    print(
        f"{result.output}: rows: {rows}; {done}; {len(result.left_out)} left out, {len(result.failed)} failed, "
        f"{len(result.warnings)} with warnings"
    )
    for case, warnings in sorted(result.warnings.items())[:_SHOWN]:
        print(f"  warning, {case}: {warnings[0]}")
    for case, reason in sorted(result.failed.items())[:_SHOWN]:
        print(f"  failed, {case}: {reason}")
    if max(len(result.failed), len(result.warnings)) > _SHOWN:
        print(f"  ... all are in {result.output / 'failures.csv'}")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not positive")
    return value


if __name__ == "__main__":
    sys.exit(main())
