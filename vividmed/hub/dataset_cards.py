"""Cards of prepared data sets: what they contain, where it comes from, and who may have it."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, Any

import jinja2
from huggingface_hub import DatasetCardData

from vividmed.data.terms import DatasetTerms, Terms
from vividmed.errors import VividMedError
from vividmed.files import write_atomically
from vividmed.hub.markdown import fenced, one_line, table_cell
from vividmed.version import __version__

if TYPE_CHECKING:
    from vividmed.data.adapters import Adapter
    from vividmed.data.preparation.case_rows import Processing
    from vividmed.data.preparation.preparation import PreparationResult
    from vividmed.data.schema import RowKind

REDISTRIBUTION_NOTICE = "May not be redistributed"

_ROW_KINDS: dict[str, tuple[str, list[str]]] = {
    "vision_language": (
        "Conversations about medical images",
        ["image-text-to-text", "visual-question-answering"],
    ),
    "localization": (
        "Medical images with masks and boxes of named targets",
        ["image-segmentation", "object-detection"],
    ),
    "grounded_report": (
        "Reports on medical images whose phrases point to masks or boxes",
        ["image-text-to-text", "image-segmentation"],
    ),
}
_ACCESS = {
    "open": "open to everyone",
    "registered": "after registration with the owners",
    "credentialed": "for credentialed readers who signed the data use agreement",
    "internal": "internal: for the institution that prepared it",
    "unknown": "unknown",
}
_NOTICE = {
    "no": "The terms of the source forbid passing the data on. Obtain it from the source and prepare it yourself; "
    "this copy is for those who have it under the same terms.",
    "derived_gated": "Derived data may be shared only with people who accepted the terms of the source and whom you approve individually. "
    "This copy is for them.",
}
_INTERNAL = (
    "This is private data: neither it nor a model trained on it may leave the institution that prepared it."
)
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))

# Identifiers that the Hub knows as licences of data; any other licence is "other", with its own name next to it.
_HUB_LICENCES = frozenset(
    [
        "apache-2.0",
        "mit",
        "bsd-3-clause",
        "gpl-3.0",
        "lgpl-3.0",
        "cc0-1.0",
        "cc-by-2.0",
        "cc-by-2.5",
        "cc-by-3.0",
        "cc-by-4.0",
        "cc-by-sa-3.0",
        "cc-by-sa-4.0",
        "cc-by-nc-2.0",
        "cc-by-nc-3.0",
        "cc-by-nc-4.0",
        "cc-by-nd-4.0",
        "cc-by-nc-nd-3.0",
        "cc-by-nc-nd-4.0",
        "cc-by-nc-sa-2.0",
        "cc-by-nc-sa-3.0",
        "cc-by-nc-sa-4.0",
        "odc-by",
        "pddl",
    ]
)

_NO_MODALITY = "not recorded"
_FIGURE = "figures/sizes_and_spacings.png"
_Rows = Mapping[Any, list[dict[str, Any]]]


@dataclass(frozen=True, kw_only=True)
class DatasetFacts:
    """Facts that the card of a prepared data set states.

    Attributes:
        title: name of the data set as its authors write it.
        row_kind: kind of the rows.
        terms: terms of the data: an adapter or :class:`~vividmed.data.terms.DatasetTerms`.
        data_files: path pattern of the Parquet files, by configuration and split.
        rows: number of rows by split.
        modality_rows: number of rows by modality and split; a missing split counts as 0.
        target_rows: number of rows in which a target is present, by target and split.
        histograms: name of a PNG file in the folder by its caption.
        preparation: program, version and settings that made the rows, as Markdown.
    """

    title: str
    row_kind: "RowKind"
    terms: Terms
    data_files: Mapping[str, Mapping[str, str]]
    rows: Mapping[str, int]
    modality_rows: Mapping[str, Mapping[str, int]]
    target_rows: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    histograms: Mapping[str, str] = field(default_factory=dict)
    preparation: str


def render_dataset_card(facts: DatasetFacts) -> str:
    """Render ``README.md`` of a prepared data set.

    Returns:
        Markdown with a YAML metadata block: licence, tasks, tags, size, and configurations with their splits, by which
        ``load_dataset`` finds the files.

    Raises:
        VividMedError: there is no split, or counts name a split that does not exist.
    """
    terms = DatasetTerms.of(facts.terms)
    _check_splits(facts)
    row_kind_text, _ = _ROW_KINDS[facts.row_kind]
    tables = {"modality": facts.modality_rows, "target": facts.target_rows}
    # StrictUndefined: a card with a hole is worse than none.
    environment = jinja2.Environment(keep_trailing_newline=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"cell": table_cell, "line": one_line}
    template = resources.files("vividmed.hub").joinpath("dataset_card.md.jinja").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        card_data=_metadata(facts, terms).to_yaml(),
        title=facts.title,
        row_kind=facts.row_kind,
        row_kind_text=row_kind_text,
        terms=terms,
        access_text=_ACCESS[terms.access],
        notice="" if terms.redistribute == "yes" else REDISTRIBUTION_NOTICE,
        notice_text=_INTERNAL if terms.access == "internal" else _NOTICE.get(terms.redistribute, ""),
        first_split=next(iter(facts.rows)),
        rows=facts.rows,
        tables={heading: _table(counts, facts.rows) for heading, counts in tables.items() if counts},
        histograms=facts.histograms,
        preparation=facts.preparation.strip(),
        citation=fenced(terms.citation) if terms.citation else "",
    )


def write_dataset_card(
    adapter: "Adapter",
    processing: "Processing",
    result: "PreparationResult",
    *,
    further: "Mapping[RowKind, PreparationResult] | None" = None,
) -> None:
    """Write ``README.md`` of a prepared data set and its figure next to the shards; without rows there is no card.

    Args:
        adapter: adapter of the data set.
        processing: choices that the images were prepared with.
        result: outcome of the preparation.
        further: rows of other kinds that were prepared from the same data into folders below, by their kind. Each is
            then a configuration, and that of ``result`` the default.
    """
    # Matplotlib and the readers of images come with the prepare extra; publishing does without them.
    from vividmed.data.preparation.statistics import draw_histograms

    figure = draw_histograms(row for rows in result.facts.values() for row in rows)
    if figure is None:
        return
    (result.output / _FIGURE).parent.mkdir(exist_ok=True)
    write_atomically(result.output / _FIGURE, figure)
    text = render_dataset_card(
        DatasetFacts(
            title=f"{adapter.title}, prepared for VividMed",
            row_kind=adapter.row_kind,
            terms=adapter,
            data_files=_data_files(adapter, result, further or {}),
            rows=result.rows,
            modality_rows=_count(result.facts, lambda row: [row["modality"] or _NO_MODALITY]),
            target_rows=_count(result.facts, lambda row: row["present"]),
            histograms={"Sizes and spacings of the images": _FIGURE},
            preparation="\n".join([*_counts(result), "", *_steps(adapter, processing)]),
        )
    )
    write_atomically(result.output / "README.md", text)


def _data_files(
    adapter: "Adapter", result: "PreparationResult", further: "Mapping[RowKind, PreparationResult]"
) -> dict[str, dict[str, str]]:
    name: str = adapter.row_kind if further else "default"
    paths: dict[str, dict[str, str]] = {name: {split: f"data/{split}-*.parquet" for split in result.facts}}
    for kind, other in further.items():
        folder = other.output.relative_to(result.output).as_posix()
        splits = [split for split in other.facts if split in result.facts]
        paths[kind] = {split: f"{folder}/data/{split}-*.parquet" for split in splits}
    return paths


def hub_licence(licence: str) -> str:
    """The Hub's identifier of a licence such as "CC BY-NC-SA 4.0"; ``other`` if it has none."""
    slug = _slug(licence)
    return slug if slug in _HUB_LICENCES else "other"


def _metadata(facts: DatasetFacts, terms: DatasetTerms) -> DatasetCardData:
    licence = hub_licence(terms.licence)
    details: dict[str, Any] = {}
    if licence == "other":
        details = {"license_name": _slug(terms.licence) or "other"}
        if terms.homepage:
            details["license_link"] = one_line(terms.homepage)
    modalities = [_slug(name) for name in facts.modality_rows if name != _NO_MODALITY]
    return DatasetCardData(
        pretty_name=one_line(facts.title),
        language="en",
        license=licence,
        task_categories=_ROW_KINDS[facts.row_kind][1],
        tags=["medical", "radiology", *modalities, f"access-{terms.access}", "vividmed"],
        size_categories=_size_category(sum(facts.rows.values())),
        configs=[
            {
                "config_name": config,
                # Several configurations need one that plain load_dataset takes.
                **({"default": True} if len(facts.data_files) > 1 and number == 0 else {}),
                "data_files": [{"split": split, "path": path} for split, path in paths.items()],
            }
            for number, (config, paths) in enumerate(facts.data_files.items())
        ],
        **details,
    )


def _check_splits(facts: DatasetFacts) -> None:
    if not facts.rows:
        raise VividMedError(f"card of {facts.title}: field 'rows' names no split; count the rows of each")
    named: list[tuple[str, Sequence[str]]] = [
        *((f"data_files[{name!r}]", list(paths)) for name, paths in facts.data_files.items()),
        *((f"modality_rows[{name!r}]", list(counts)) for name, counts in facts.modality_rows.items()),
        *((f"target_rows[{name!r}]", list(counts)) for name, counts in facts.target_rows.items()),
    ]
    for place, splits in named:
        if unknown := set(splits) - set(facts.rows):
            raise VividMedError(
                f"card of {facts.title}: {place} has the split {min(unknown)!r}, which 'rows' lacks; count it there"
            )


def _table(counts: Mapping[str, Mapping[str, int]], splits: Mapping[str, int]) -> dict[str, list[int]]:
    """One line per name and one number per split, the most frequent name first."""
    order = sorted(counts, key=lambda name: (-sum(counts[name].values()), name))
    return {name: [counts[name].get(split, 0) for split in splits] for name in order}


def _size_category(rows: int) -> str:
    return next((name for limit, name in _SIZES if rows < limit), "n>1M")


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")


def _count(facts: _Rows, names: Callable[[dict[str, Any]], Iterable[str]]) -> dict[str, dict[str, int]]:
    """Rows by name and split."""
    counts: dict[str, dict[str, int]] = defaultdict(dict)
    for split, rows in facts.items():
        for name, number in Counter(name for row in rows for name in names(row)).items():
            counts[name][split] = number
    return dict(counts)


def _counts(result: "PreparationResult") -> list[str]:
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


def _steps(adapter: "Adapter", processing: "Processing") -> list[str]:
    from vividmed.data.preparation.intensity import WINDOWS

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
    rule = "a hash of the patient's key, which is the same in every data set."
    if adapter.split_ratios is not None:
        shares = " : ".join(f"{100 * share:g}" for share in adapter.split_ratios.values())
        rule = f"hash of the patient's key, in the ratios {shares} (train, validation, test)."
    return [
        f"Made from the original files by `{adapter.command or f'vividmed prepare {adapter.name}'}` of VividMed "
        f"{__version__}.",
        "",
        "- **Orientation.** Slices first, all axes towards right, anterior or superior; the affine follows.",
        "- **Crop.** To voxels above the lower intensity limit, and to all masks and boxes.",
        f"- **Resolution.** The shorter in-plane edge is at most {processing.in_plane_limit(adapter)} voxels{depth}; slices closer than "
        "half the in-plane spacing are merged. Images and masks are averaged over the volume of the new voxels.",
        f"- **Intensity.** {intensity}",
        "- **Masks.** Specks of anatomy, under 10 voxels and under a thousandth of the largest part, are removed. Left "
        "structures lie to the left of the right ones, or the case failed.",
        f"- **Splits.** By patient: {official}{rule}",
    ]
