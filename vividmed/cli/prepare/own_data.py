"""What the verbs that prepare one's own data share: arguments, the preview, the work, and what is printed about it."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from shtab import DIRECTORY, FILE

from vividmed.cli.parser import positive_int
from vividmed.cli.prepare.work import add_work
from vividmed.console import DONE, INCOMPLETE
from vividmed.errors import VividMedError

if TYPE_CHECKING:
    from vividmed.data.own.listing import OwnData, OwnListing
    from vividmed.data.own.prepare import OwnResult

_SHOWN = 10


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that all layouts share."""
    output = parser.add_argument(
        "--output", type=Path, metavar="DIR", help="folder to write the prepared data set to"
    )
    output.complete = DIRECTORY  # type: ignore[attr-defined]
    parser.add_argument(
        "--push-to-hub", metavar="REPO", help="upload the result to this repository, which is private"
    )
    parser.add_argument(
        "--name", help="name of the data set; made from the name of the file or folder by default"
    )
    parser.add_argument(
        "--modality",
        default="",
        metavar="NAME",
        help="modality of images that do not state theirs, such as X-ray or CT",
    )
    parser.add_argument(
        "--split-ratios",
        metavar="T,V,T",
        help="shares of the patients in train, validation and test, where none are stated (default: 0.8,0.1,0.1)",
    )
    parser.add_argument(
        "--max-in-plane",
        type=positive_int,
        metavar="PIXELS",
        help="largest length of the shorter edge in the plane, if smaller than the data set's (512 for most)",
    )
    add_work(parser, "images")
    parser.add_argument("--dry-run", action="store_true", help="show how the data is understood and stop")


def add_images(parser: argparse.ArgumentParser) -> None:
    """Add ``--images``."""
    images = parser.add_argument(
        "--images", type=Path, metavar="DIR", help="folder of the images (default: the folder of the file)"
    )
    images.complete = DIRECTORY  # type: ignore[attr-defined]


def add_labels(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of layouts with labels: their targets."""
    parser.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="LABEL=TARGET",
        help="target that a label means; 'LABEL=' leaves a label out; may be repeated",
    )
    taxonomy = parser.add_argument(
        "--taxonomy",
        type=Path,
        metavar="FILE",
        help="YAML file with targets of your own; see docs/own_data.md",
    )
    taxonomy.complete = FILE  # type: ignore[attr-defined]


def use_labels(args: argparse.Namespace) -> dict[str, str]:
    """Add the targets of one's own to the taxonomy, and give the target of each label that the user maps."""
    from vividmed.data.own.target_names import parse_renames
    from vividmed.data.taxonomy import use_taxonomy

    if args.taxonomy is not None:
        use_taxonomy(args.taxonomy)
    return parse_renames(args.map)


def prepare(
    args: argparse.Namespace,
    command: str,
    default_name: str,
    read: Callable[[], "OwnListing"],
    *,
    read_reports: Callable[[], "OwnListing | None"] = lambda: None,
) -> int:
    """Read, preview, prepare and publish.

    Args:
        args: arguments of the verb.
        command: the verb, for errors and the card.
        default_name: file or folder that the data set is named after.
        read: reads the layout.
        read_reports: gives its grounded reports, if it has any; called after ``read``.

    Returns:
        Exit status.
    """
    if args.output is None and args.push_to_hub is None and not args.dry_run:
        raise VividMedError(f"vividmed {command}: give --output, --push-to-hub or --dry-run")
    from huggingface_hub.constants import HF_HOME

    from vividmed.data.own.listing import OwnData, check_name, parse_ratios, split_together
    from vividmed.data.own.listing import default_name as made_name
    from vividmed.data.own.prepare import prepare_own
    from vividmed.data.preparation.case_rows import Processing
    from vividmed.data.preparation.targets import check_targets
    from vividmed.data.raw.case import Case
    from vividmed.data.taxonomy_files import save_taxonomy
    from vividmed.hub.dataset_cards import write_dataset_card
    from vividmed.hub.publish import publish_dataset

    ratios = parse_ratios(args.split_ratios) if args.split_ratios else None
    name = check_name(args.name, made_name(default_name))
    listing, reports = read(), read_reports()
    stated = all(case.split for case in listing.cases if isinstance(case, Case))
    if ratios is not None and stated:
        raise VividMedError(
            "--split-ratios: the data states the split of every patient; leave the argument out"
        )
    data = [
        OwnData(each, name=name, command=f"vividmed {command}", ratios=ratios)
        for each in (listing, reports)
        if each is not None
    ]
    if reports is not None:
        data = list(split_together(*data))
    print(_overview(data[0], data[1:]), flush=True)
    check_targets(name, (case for case in listing.cases if isinstance(case, Case)))
    if args.dry_run:
        return INCOMPLETE if listing.refused else DONE
    output = args.output or Path(HF_HOME) / "vividmed" / "prepared" / name
    processing = Processing(window=args.window, max_in_plane=args.max_in_plane)
    results = [
        prepare_own(
            each,
            output / each.row_kind if number else output,
            processing=processing,
            limit=args.limit,
            num_proc=args.num_proc,
            progress=True,
        )
        for number, each in enumerate(data)
    ]
    save_taxonomy(output)
    further = {each.row_kind: result.prepared for each, result in zip(data[1:], results[1:], strict=True)}
    for each, result in zip(data[1:], results[1:], strict=True):
        write_dataset_card(each, processing, result.prepared)
    write_dataset_card(data[0], processing, results[0].prepared, further=further)
    for each, result in zip(data, results, strict=True):
        print(_summary(each, result, output if each is data[0] else output / each.row_kind))
    if not results[0].prepared.rows:
        raise VividMedError(f"{output}: nothing could be prepared; correct what is listed above")
    if args.push_to_hub:
        published = publish_dataset(output, args.push_to_hub, terms=data[0])
        print(f"pushed to {published.repo_id}, {published.visibility}, revision {published.revision}")
    return INCOMPLETE if any(result.refused or result.prepared.failed for result in results) else DONE


def _overview(data: "OwnData", further: Sequence["OwnData"] = ()) -> str:
    from vividmed.data.own.listing import ratios_text

    listing = data.listing
    lines = [*listing.overview]
    if not listing.has_splits:
        lines.append(f"  {'splits':<10} by patient, train : validation : test = {ratios_text(data.ratios)}")
    lines += [f"note: {note}" for note in listing.notes]
    if not listing.has_patients:
        lines.append(
            "note: no patients are named: each image or case counts as one; name them if some have several images"
        )
    if not listing.modalities:
        lines.append("note: the modality is not recorded; name it by --modality if all images have the same")
    previews = [line for each in [data, *further] for line in each.listing.preview]
    return "\n".join([*lines, *previews])


def _summary(data: "OwnData", result: "OwnResult", output: Path) -> str:
    """Counts of rows, and everything that was refused, failed or needs a look."""
    prepared = result.prepared
    rows = ", ".join(f"{number} {split}" for split, number in prepared.rows.items()) or "none"
    done = "nothing had changed" if not prepared.worked_on else f"{prepared.worked_on} images processed"
    lines = [f"{output}: rows: {rows}; {done}"]
    if result.refused:
        from vividmed.data.own.prepare import REFUSED_FILE

        number = len(result.refused)
        lines.append(f"refused: {number} row{'s' * (number > 1)}, listed in {output / REFUSED_FILE}")
        lines += [f"  {row}" for row in result.refused]
    listed = {str(row.place) for row in result.refused} | set(data.listing.table_rows)
    failed = {case: reason for case, reason in prepared.failed.items() if case not in listed}
    lines += [f"  failed, {case}: {reason}" for case, reason in sorted(failed.items())[:_SHOWN]]
    lines += [f"  left out, {case}: {reason}" for case, reason in sorted(prepared.left_out.items())[:_SHOWN]]
    lines += [f"  warning, {case}: {found[0]}" for case, found in sorted(prepared.warnings.items())[:_SHOWN]]
    if max(len(failed), len(prepared.left_out), len(prepared.warnings)) > _SHOWN:
        lines.append(f"  ... all are listed in {output / 'failures.csv'}")
    return "\n".join(lines)
