"""The steps of ``vividmed ground-reports``: arguments to steps, and results to a table."""

import argparse
import math
from typing import Any

from tqdm import tqdm

from vividmed.console import DONE
from vividmed.data.known_terms import known_terms
from vividmed.data.pseudo_labels.agreement import read_sizes
from vividmed.data.pseudo_labels.cleaning import Cleaning
from vividmed.data.pseudo_labels.endpoint import Endpoint, check_address
from vividmed.data.pseudo_labels.filtering import Filtering
from vividmed.data.pseudo_labels.folders import check_history, check_output
from vividmed.data.pseudo_labels.grounded_rows import SHARD_STUDIES as ROWS_PER_SHARD
from vividmed.data.pseudo_labels.grounded_rows import RowsPlan, RowsResult
from vividmed.data.pseudo_labels.instance_boxes import InstanceBoxes
from vividmed.data.pseudo_labels.language_models import LanguageModel, LocalModel
from vividmed.data.pseudo_labels.localizers import Localizer, MaskFolder, NameTable
from vividmed.data.pseudo_labels.localizing import Localizing
from vividmed.data.pseudo_labels.programs import LEAST_SCORE, CocoBoxes, Program
from vividmed.data.pseudo_labels.review import Merging, agreement, read_decisions
from vividmed.data.pseudo_labels.sources import Source, open_source
from vividmed.data.pseudo_labels.steps import SHARD_STUDIES, Step, StepPlan, StepResult
from vividmed.data.pseudo_labels.tagging_step import Tagging
from vividmed.data.taxonomy import Taxonomy
from vividmed.errors import VividMedError
from vividmed.files import alone_in


def run_command_step(args: argparse.Namespace) -> int:
    """Run the step that the arguments name."""
    source = open_source(args.input, known=known_terms(), limit=args.limit)
    check_history(args.step, args.input, source)
    check_output(args.step, args.input, args.output)
    if args.step == "review":
        return _review(args, source)
    plan: StepPlan | RowsPlan
    if args.step == "rows":
        reader = Localizing(_Nobody(), allow_outside_images=args.allow_outside_images)
        plan = RowsPlan(source, args.output, reader, args.shard_studies or ROWS_PER_SHARD)
    else:
        plan = StepPlan(_step(args, source), source, args.output, args.shard_studies or SHARD_STUDIES)
    return _run(args, plan, len(source))


def _step(args: argparse.Namespace, source: Source) -> Step:
    if args.step == "localize":
        sizes = None if args.organ_sizes is None else read_sizes(args.organ_sizes)
        localizer = _localizer(args)
        if args.instances is not None:
            localizer = InstanceBoxes(localizer, _instances(args))
        return Localizing(localizer, sizes=sizes, allow_outside_images=args.allow_outside_images)
    steps: dict[str, Any] = {"clean": Cleaning, "tag": Tagging, "filter": Filtering}
    return steps[args.step](_model(args, source))


def _model(args: argparse.Namespace, source: Source) -> LanguageModel | None:
    options = {"batch_size": args.batch_size, "max_new_tokens": args.max_new_tokens}
    if args.endpoint is None:
        return LocalModel(args.model, **options) if args.model else None
    if args.model is None:
        raise VividMedError(f"vividmed ground-reports {args.step}: --endpoint needs --model, its name there")
    endpoint = Endpoint(args.endpoint, args.model, timeout=args.timeout, **options)
    check_address(endpoint, source.terms, confirmed=args.confirm_terms)
    return endpoint


def _localizer(args: argparse.Namespace) -> Localizer:
    if args.originals is not None and args.program is None:
        raise VividMedError("vividmed ground-reports localize: --originals is for --program")
    if args.localizer_model is not None:
        from vividmed.inference.localizer import LEAST_SCORE as LEAST_OF_MODELS
        from vividmed.inference.localizer import open_localizer

        least = LEAST_OF_MODELS if args.least_score is None else args.least_score
        return open_localizer(args.localizer_model, least_score=least)
    if args.least_score is not None and args.boxes is None:
        raise VividMedError(
            "vividmed ground-reports localize: --least-score is for --boxes and --localizer-model"
        )
    table = NameTable.load(args.names)
    if args.boxes is not None:
        least = LEAST_SCORE if args.least_score is None else args.least_score
        return CocoBoxes(args.boxes, table, least_score=least)
    if args.program is not None:
        return Program(args.program, table, originals=args.originals, timeout=args.program_timeout)
    return MaskFolder(args.masks, table)


def _instances(args: argparse.Namespace) -> list[str]:
    """Canonical names of the targets that get a box per instance."""
    if args.boxes is not None:
        raise VividMedError(
            "vividmed ground-reports localize: --instances is for masks; leave it out with --boxes"
        )
    taxonomy = Taxonomy.load()
    try:
        return [taxonomy[name.strip()].name for name in args.instances.split(",")]
    except VividMedError as error:
        raise VividMedError(f"--instances: {error}") from error


def _run(args: argparse.Namespace, plan: StepPlan | RowsPlan, total: int) -> int:
    if args.slurm and args.tasks is None:
        raise VividMedError(f"vividmed ground-reports {args.step}: --slurm needs --tasks")
    worked_on = 0
    if args.tasks is None:
        with alone_in(args.output), tqdm(total=total, unit="study", desc=args.step) as bar:
            worked_on = sum(plan.work_on(shard, progress=bar.update) for shard in plan.shards)  # type: ignore[arg-type, misc]
            result = plan.finish(worked_on)
    else:
        from vividmed.data.preparation.distributed import local_executor, slurm_executor

        tasks = min(args.tasks, max(1, len(plan.shards)))
        if args.slurm:
            options = {"partition": args.slurm, "time": args.time, "memory_gb": args.memory_gb}
            slurm_executor(plan, tasks=tasks, **options).run()
            print("submitted; when the jobs are done, run the command without --slurm and --tasks to finish")
            return DONE
        local_executor(plan, tasks=tasks).run()
        result = plan.finish(total)
    if isinstance(result, RowsResult):
        from vividmed.hub.pseudo_label_cards import write_pseudo_label_card

        write_pseudo_label_card(result)
        print(_rows_summary(result))
    else:
        print(_summary(result))
    return DONE


def _review(args: argparse.Namespace, source: Source) -> int:
    if not args.decisions:
        from vividmed.export.review_pages import write_review_pages

        reader = Localizing(_Nobody(), allow_outside_images=args.allow_outside_images)
        written = write_review_pages(source, args.output, reader, everything=args.everything)
        print(f"{args.output / 'index.html'}: {written.pages} pages with {written.items} items")
        return DONE
    judgements = [each for path in args.decisions for each in read_decisions(path)]
    known = {study.id for start in range(0, len(source), 1000) for study in source.load(start, start + 1000)}
    if stray := next((each for each in judgements if each.id not in known), None):
        raise VividMedError(f"{stray.where}: there is no study {stray.id!r} in {args.input}")
    plan = StepPlan(Merging(judgements), source, args.output)
    with alone_in(args.output):
        result = plan.finish(sum(plan.work_on(shard) for shard in plan.shards))
    print(_summary(result))
    for one, other, shared, same, kappa in agreement(judgements):
        figure = "not defined" if math.isnan(kappa) else f"{kappa:.3f}"
        print(f"  {one} and {other}: {shared} items, {same:.1%} equal, Cohen's kappa {figure}")
    return DONE


def _summary(result: StepResult) -> str:
    done = f"{result.worked_on} worked on" if result.worked_on else "nothing had changed"
    lines = [f"{result.output}: {result.studies} studies; {done}"]
    lines += [f"  {name}: {number}" for name, number in result.figures.items()]
    lines += [f"  rejected, {reason}: {number}" for reason, number in result.rejects.items()]
    if result.rejects:
        lines.append(f"  all are listed in {result.output / 'rejects.csv'}")
    return "\n".join(lines)


def _rows_summary(result: RowsResult) -> str:
    rows = ", ".join(f"{number} {split}" for split, number in result.rows.items())
    done = f"{result.worked_on} studies worked on" if result.worked_on else "nothing had changed"
    phrases, located = result.phrases
    lines = [f"{result.output}: rows: {rows}; {done}; {phrases} phrases, {located} with a place"]
    lines += [f"  no row, {reason}: {number}" for reason, number in result.left_out.items()]
    return "\n".join(lines)


class _Nobody(Localizer):
    """Stands where rows are read and nothing is located."""

    name = "nobody"

    def locate(self, request: Any) -> tuple[()]:
        return ()
