"""``vividmed data``: look at prepared data sets, and at what the model is trained on."""

import argparse
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, load_dataset
from datasets.exceptions import DatasetNotFoundError

from vividmed.cli.contact_sheet import Tile, draw_contact_sheet
from vividmed.data.preparation.statistics import count_targets
from vividmed.data.sampling.mixture import sample_conversations
from vividmed.data.schema import plain_target
from vividmed.errors import VividMedError

_MOST_TARGETS = 30


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "data", help="look at prepared data and at training samples", allow_abbrev=False
    )
    subcommands = parser.add_subparsers(required=True, metavar="COMMAND")
    preview = subcommands.add_parser(
        "preview", help="contact sheet with masks and boxes, and a table of statistics", allow_abbrev=False
    )
    preview.add_argument("dataset", help="folder of a prepared data set, or repository on the Hub")
    preview.add_argument("-n", type=int, default=24, help="rows on the sheet, spread over each split (24)")
    preview.add_argument("--split", help="show one split")
    preview.add_argument("--output", type=Path, default=Path("preview.png"), help="PNG file (preview.png)")
    preview.set_defaults(run=_preview)
    sample = subcommands.add_parser(
        "sample", help="print and draw what the model would be trained on", allow_abbrev=False
    )
    sample.add_argument("--config", type=Path, required=True, help="YAML of a mixture or of a stage")
    sample.add_argument("--root", help="folder or Hub organisation of the prepared data sets")
    sample.add_argument("-n", type=int, default=20, help="samples (20)")
    sample.add_argument("--output", type=Path, default=Path("samples.png"), help="PNG file (samples.png)")
    sample.set_defaults(run=_sample)


def _preview(args: argparse.Namespace) -> None:
    splits = _load(args.dataset)
    if args.split is not None:
        if args.split not in splits:
            raise VividMedError(f"--split {args.split}: {args.dataset} has {', '.join(splits)}")
        splits = DatasetDict({args.split: splits[args.split]})
    print(_statistics(splits))
    tiles = []
    for split, rows in splits.items():
        share = max(1, round(args.n / len(splits)))
        for index in range(0, len(rows), max(1, len(rows) // share)):
            row = rows[index]
            name = row["id"].partition(":")[2] or row["id"]
            tiles.append(Tile(row, f"{split}, {row['modality'] or 'modality not recorded'}: {name}"))
    draw_contact_sheet(tiles[: args.n], args.output)
    print(f"{args.output}: {len(tiles[: args.n])} rows")


def _load(dataset: str) -> DatasetDict:
    try:
        loaded = load_dataset(dataset)
    except (DatasetNotFoundError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise VividMedError(
            f"{dataset}: cannot be loaded ({reason}); give a prepared folder or a repository"
        ) from error
    if missing := {"id", "images", "volumes", "modality"} - set(next(iter(loaded.values())).column_names):
        raise VividMedError(
            f"{dataset}: lacks the column {min(missing)!r}; prepare the data set with prepare.py"
        )
    return loaded


def _statistics(splits: DatasetDict) -> str:
    """Rows, patients, modalities, and targets of each split, without decoding an image."""
    lines = []
    facts: list[dict[str, list[str]]] = []
    for split, rows in splits.items():
        light = rows.select_columns([c for c in rows.column_names if c not in ("images", "volumes", "masks")])
        modalities = sorted(name or "not recorded" for name in light.unique("modality"))
        lines.append(
            f"{split}: {len(rows)} rows, {len(light.unique('patient'))} patients, {', '.join(modalities)}"
        )
        facts += _targets(light)
    counts = count_targets(facts)
    if counts:
        width = max(len(name) for name, _, _ in counts)
        lines.append(f"{'target':<{width}}  present   absent")
        lines += [f"{name:<{width}}  {yes:>7}  {no:>7}" for name, yes, no in counts[:_MOST_TARGETS]]
        if len(counts) > _MOST_TARGETS:
            lines.append(f"... and {len(counts) - _MOST_TARGETS} more targets")
    return "\n".join(lines)


def _targets(rows: Dataset) -> list[dict[str, list[str]]]:
    if "targets" in rows.column_names:
        columns = rows.select_columns(["targets", "absent"])
        return [{"present": row["targets"], "absent": row["absent"]} for row in columns]
    if "phrases" in rows.column_names:
        names = (
            {plain_target(target) for phrase in row["phrases"] for target in phrase["targets"]}
            for row in rows.select_columns(["phrases"])
        )
        return [{"present": sorted(each), "absent": []} for each in names]
    return []


def _sample(args: argparse.Namespace) -> None:
    samples = sample_conversations(args.config, args.n, root=args.root)
    tiles = []
    for number, sample in enumerate(samples, start=1):
        print(f"--- {number}: {sample.row['id']} ({sample.row['modality']})")
        for message in sample.conversation.messages:
            print(f"{message['role']}: {message['content']}")
        for phrase in sample.conversation.phrases:
            print(
                f"  <p>{phrase.text}</p> -> {phrase.label_type or 'no label'}, {', '.join(phrase.targets) or 'nothing'}"
            )
        shown = {target for phrase in sample.conversation.phrases for target in phrase.targets}
        tiles.append(Tile(sample.row, f"{number}: {sample.row['id']}", shown))
    draw_contact_sheet(tiles, args.output)
    print(f"{args.output}: {len(tiles)} samples")
