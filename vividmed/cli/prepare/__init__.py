"""Turn an original data set into a Hugging Face data set.

    vividmed prepare --list [--origin FOLDER_OF_ALL_ORIGINS]
    vividmed prepare amos22 --origin data/origin/amos22 --verify
    vividmed prepare amos22 --origin data/origin/amos22 --output data/amos22 --num-proc 8
    vividmed prepare amos22 --origin data/origin/amos22 --push-to-hub NAMESPACE/amos22

For data of your own (each with a --help of its own):

    vividmed prepare table questions.csv --images scans --output data/questions
    vividmed prepare imagefolder FOLDER --output data/captions
    vividmed prepare nnunet FOLDER --output data/liver
    vividmed prepare coco FILE --images FOLDER --output data/fractures
    vividmed prepare bids FOLDER --output data/lesions

Safe to interrupt: run the command again to resume. If nothing changed, it does nothing. Cases that fail are listed in
failures.csv. Exit status: 0 if all cases are prepared, 1 if some failed, 2 for wrong arguments or input. See
docs/data.md.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shtab import DIRECTORY, FILE

from vividmed.cli.parser import positive_int
from vividmed.cli.prepare.work import add_work
from vividmed.cli.push import add_audience
from vividmed.console import DONE, INCOMPLETE
from vividmed.errors import VividMedError

if TYPE_CHECKING:
    from vividmed.data.adapters import Adapter
    from vividmed.data.preparation.preparation import PreparationResult

# Written out, for the libraries behind them take seconds to import; a test compares them.
SPLITS = ("train", "validation", "test")
_SHOWN = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``vividmed prepare``."""
    parser.add_argument("name", nargs="?", help="data set to prepare; see --list")
    parser.add_argument("--list", action="store_true", help="print the table of data sets and exit")
    adapter = parser.add_argument(
        "--adapter", type=Path, metavar="FILE", help="Python file with an adapter of your own, which is run"
    )
    adapter.complete = FILE  # type: ignore[attr-defined]
    parser.add_argument(
        "--verify", action="store_true", help="check that the original data set is complete and exit"
    )
    origin = parser.add_argument("--origin", type=Path, help="folder of the original data set")
    output = parser.add_argument("--output", type=Path, help="folder to write the prepared data set to")
    for folder in (origin, output):
        folder.complete = DIRECTORY  # type: ignore[attr-defined]
    parser.add_argument(
        "--push-to-hub", metavar="REPO", help="upload the result to this repository, private by default"
    )
    add_audience(parser)
    add_work(parser, "cases")
    parser.add_argument("--split", choices=SPLITS, help="prepare only this split")
    parser.add_argument(
        "--max-in-plane",
        type=positive_int,
        metavar="PIXELS",
        help="largest length of the shorter edge in the plane, if smaller than the data set's (512 for most)",
    )
    parser.add_argument(
        "--retry-failed", action="store_true", help="retry failed cases even if their files have not changed"
    )
    cluster = parser.add_argument_group("on several machines (needs vividmed[distributed])")
    cluster.add_argument(
        "--tasks", type=positive_int, metavar="N", help="number of tasks to divide the shards among"
    )
    cluster.add_argument(
        "--slurm",
        metavar="PARTITION",
        help="submit the tasks to this Slurm partition instead of running them here",
    )
    cluster.add_argument("--time", default="24:00:00", help="time limit of a Slurm job (default: 24:00:00)")
    cluster.add_argument(
        "--memory-gb", type=positive_int, default=16, help="memory of a Slurm job in GB (default: 16)"
    )


def run(args: argparse.Namespace) -> int:
    """List, verify, or prepare and publish."""
    if args.adapter is not None:
        from vividmed.data.own.adapter_files import load_adapter_file

        names = load_adapter_file(args.adapter)
        args.name = args.name or (names[0] if len(names) == 1 else None)
    _check(args)
    from vividmed.data.adapters import get_adapter
    from vividmed.data.preparation.catalogue import catalogue
    from vividmed.data.preparation.integrity import verify_origin

    if args.list:
        print(catalogue(args.origin))
        return DONE
    adapter = get_adapter(args.name)
    if args.verify:
        report = verify_origin(adapter, args.origin)
        print(report.table())
        return DONE if report.complete else INCOMPLETE
    return _prepare(adapter, args)


def _check(args: argparse.Namespace) -> None:
    """Refuse combinations that make no sense."""
    if args.list:
        return
    if args.name is None or args.origin is None:
        raise VividMedError("vividmed prepare: name a data set and its --origin, or use --list")
    if not args.verify and args.output is None and args.push_to_hub is None:
        raise VividMedError("vividmed prepare: give --output, --push-to-hub or both")
    if (args.public or args.gated) and args.push_to_hub is None:
        raise VividMedError("vividmed prepare: --public and --gated need --push-to-hub")
    if args.slurm and args.tasks is None:
        raise VividMedError("vividmed prepare: --slurm needs --tasks")


def _prepare(adapter: "Adapter", args: argparse.Namespace) -> int:
    from huggingface_hub.constants import HF_HOME

    from vividmed.data.preparation.case_rows import Processing
    from vividmed.data.preparation.prepare import plan_preparation, prepare_dataset
    from vividmed.hub.dataset_cards import write_dataset_card
    from vividmed.hub.publish import check_audience, publish_dataset

    check_audience(adapter, public=args.public, gated=args.gated)
    processing = Processing(window=args.window, max_in_plane=args.max_in_plane)
    output = args.output or Path(HF_HOME) / "vividmed" / "prepared" / adapter.name
    choices: dict[str, Any] = {
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
            print("submitted; when the jobs are done, run the command without --slurm and --tasks to finish")
            return DONE
        local_executor(plan, tasks=tasks).run()
        result = plan.finish(worked_on=len(plan.listing.cases))
    write_dataset_card(adapter, processing, result)
    print(_summary(result))
    if args.push_to_hub:
        published = publish_dataset(
            output, args.push_to_hub, terms=adapter, public=args.public, gated=args.gated
        )
        print(f"pushed to {published.repo_id}, {published.visibility}, revision {published.revision}")
    return INCOMPLETE if result.failed else DONE


def _summary(result: "PreparationResult") -> str:
    """Counts of rows and cases, with the first warnings and failures."""
    rows = ", ".join(f"{number} {split}" for split, number in result.rows.items()) or "none"
    done = "nothing had changed" if not result.worked_on else f"{result.worked_on} cases processed"
    lines = [
        f"{result.output}: rows: {rows}; {done}; {len(result.left_out)} left out, {len(result.failed)} failed, "
        f"{len(result.warnings)} with warnings",
        *(f"  warning, {case}: {found[0]}" for case, found in sorted(result.warnings.items())[:_SHOWN]),
        *(f"  failed, {case}: {reason}" for case, reason in sorted(result.failed.items())[:_SHOWN]),
    ]
    if max(len(result.failed), len(result.warnings)) > _SHOWN:
        lines.append(f"  ... all are listed in {result.output / 'failures.csv'}")
    return "\n".join(lines)
