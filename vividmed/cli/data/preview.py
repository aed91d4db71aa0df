"""Draw rows of a prepared data set on one sheet, and count what they contain.

    vividmed data preview data/amos22
    vividmed data preview namespace/name --split train -n 12 --output sheet.png

Each volume is shown by the slice with most targets, seen as radiologists do (the patient's left on the right), with
masks filled and boxes framed. The table counts rows, patients and targets per split.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from shtab import DIRECTORY, FILE

from vividmed.cli.parser import add_on_bad_sample, positive_int
from vividmed.errors import VividMedError

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

_MOST_TARGETS = 30
_NEEDED = ("id", "images", "volumes", "modality", "patient")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``vividmed data preview``."""
    dataset = parser.add_argument("dataset", help="folder of a prepared data set, or repository on the Hub")
    dataset.complete = DIRECTORY  # type: ignore[attr-defined]
    parser.add_argument(
        "-n", type=positive_int, default=24, help="number of rows, spread over each split (default: 24)"
    )
    parser.add_argument("--split", help="show only this split")
    output = parser.add_argument(
        "--output", type=Path, default=Path("preview.png"), help="PNG file to write (default: preview.png)"
    )
    output.complete = FILE  # type: ignore[attr-defined]
    add_on_bad_sample(parser)


def run(args: argparse.Namespace) -> None:
    """Print the statistics and draw the contact sheet."""
    from datasets import DatasetDict

    from vividmed.cli.data.contact_sheet import Tile, draw_contact_sheet
    from vividmed.data.sampling.keyed_rows import KeyedRows

    splits = _load(args.dataset)
    if args.split is not None:
        if args.split not in splits:
            raise VividMedError(
                f"--split {args.split}: {args.dataset} has no such split; choose one of {', '.join(splits)}"
            )
        splits = DatasetDict({args.split: splits[args.split]})
    print(_statistics(splits))
    tiles = []
    for split, rows in splits.items():
        encoded = KeyedRows(rows)
        share = max(1, round(args.n / len(splits)))
        for index in range(0, len(rows), max(1, len(rows) // share)):
            row = encoded[index]
            name = row["id"].partition(":")[2] or row["id"]
            tiles.append(Tile(row, f"{split}, {row['modality'] or 'modality not recorded'}: {name}"))
    drawn = draw_contact_sheet(tiles[: args.n], args.output, on_bad_sample=args.on_bad_sample)
    print(f"{args.output}: {drawn} rows")


def _load(dataset: str) -> "DatasetDict":
    from vividmed.data.loading import load_prepared
    from vividmed.hub.base_model import is_hub_id

    if not Path(dataset).is_dir() and not is_hub_id(dataset):
        raise VividMedError(
            f"{dataset}: is neither a folder nor the namespace/name of a repository; give a prepared data set"
        )
    loaded = load_prepared(dataset, what=f"{dataset}:")
    if missing := set(_NEEDED) - set(next(iter(loaded.values())).column_names):
        raise VividMedError(
            f"{dataset}: lacks the column {min(missing)!r}; prepare the data set with `vividmed prepare`"
        )
    return loaded


def _statistics(splits: "DatasetDict") -> str:
    """Rows, patients, modalities, and targets of each split, without decoding an image."""
    from vividmed.data.preparation.statistics import count_targets

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


def _targets(rows: "Dataset") -> list[dict[str, list[str]]]:
    from vividmed.data.schema import plain_target

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
