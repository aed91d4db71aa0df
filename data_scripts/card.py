"""The data card of a prepared data set, from what the preparation counted."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from vividmed.data.adapters import Adapter
from vividmed.data.preparation.case_rows import Processing
from vividmed.data.preparation.intensity import WINDOWS
from vividmed.data.preparation.prepare import PreparationResult
from vividmed.data.preparation.statistics import draw_histograms
from vividmed.files import write_atomically
from vividmed.hub.dataset_cards import DatasetFacts, render_dataset_card
from vividmed.version import __version__

_FIGURE = "figures/sizes_and_spacings.png"

Rows = Mapping[Any, list[dict[str, Any]]]


def write_card(adapter: Adapter, processing: Processing, result: PreparationResult) -> None:
    """Write ``README.md`` and its figure next to the shards; without rows there is no card."""
    figure = draw_histograms(row for rows in result.facts.values() for row in rows)
    if figure is None:
        return
    (result.output / _FIGURE).parent.mkdir(exist_ok=True)
    write_atomically(result.output / _FIGURE, figure)
    text = render_dataset_card(
        DatasetFacts(
            title=f"{adapter.title}, prepared for VividMed",
            kind=adapter.row_kind,
            terms=adapter,
            data_files={"default": {split: f"data/{split}-*.parquet" for split in result.facts}},
            rows=result.rows,
            modality_rows=_count(result.facts, lambda row: [row["modality"] or "not recorded"]),
            target_rows=_count(result.facts, lambda row: row["present"]),
            histograms={"Sizes and spacings of the images": _FIGURE},
            preparation="\n".join([*_counts(result), "", *_steps(adapter, processing)]),
        )
    )
    write_atomically(result.output / "README.md", text.encode())


def _count(facts: Rows, names: Callable[[dict[str, Any]], Iterable[str]]) -> dict[str, dict[str, int]]:
    """Rows by name and split."""
    counts: dict[str, dict[str, int]] = defaultdict(dict)
    for split, rows in facts.items():
        for name, number in Counter(name for row in rows for name in names(row)).items():
            counts[name][split] = number
    return dict(counts)


def _counts(result: PreparationResult) -> list[str]:
    lines = ["| split | patients | rows | masks | boxes | words |", "|---|--:|--:|--:|--:|--:|"]
    for split, rows in result.facts.items():
        totals = [sum(row[name] for row in rows) for name in ("masks", "boxes", "words")]
        numbers = [len({row["patient"] for row in rows}), len(rows), *totals]
        lines.append(f"| {split} | {' | '.join(map(str, numbers))} |")
    if result.failed or result.left_out:
        lines += [
            "",
            f"Cases that failed: {len(result.failed)}. Cases left out on purpose: {len(result.left_out)}.",
        ]
    if result.warnings:
        lines += [
            "",
            f"Cases to look at, because text may be burnt into the image or a left structure lies to the right of its "
            f"counterpart: {len(result.warnings)}.",
        ]
    return lines


def _steps(adapter: Adapter, processing: Processing) -> list[str]:
    depth = f" and the depth at most {adapter.max_depth}" if adapter.max_depth else ""
    quantiles = "the quantiles 0.00135 and 0.99865" + (
        " of the voxels above the smallest value" if adapter.exclude_minimum else ""
    )
    intensity = f"Linear between {quantiles}; eight-bit images are kept."
    if processing.window:
        low, high = WINDOWS[processing.window]
        intensity = (
            f"CT by the {processing.window} window, {low:g} to {high:g} HU. Else linear between {quantiles}."
        )
    official = "the official ones, else by " if adapter.published_split else ""
    return [
        f"Made from the original files by `data_scripts/prepare.py {adapter.name}` of VividMed {__version__}.",
        "",
        "- **Orientation.** Slices first, all axes towards right, anterior or superior; the affine follows.",
        "- **Crop.** To voxels above the lower intensity limit, and to all masks and boxes.",
        f"- **Resolution.** The shorter in-plane edge is at most {adapter.max_in_plane} voxels{depth}; slices closer than "
        "half the in-plane spacing are merged. Images and masks are averaged over the volume of the new voxels.",
        f"- **Intensity.** {intensity}",
        "- **Masks.** Specks of anatomy, under 10 voxels and under a thousandth of the largest part, are removed. Left "
        "structures lie to the left of the right ones, or the case failed.",
        f"- **Splits.** By patient: {official}a hash of the patient's key, which is the same in every data set.",
    ]
