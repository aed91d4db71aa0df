"""Cards of prepared data sets: what is in them, where it comes from, and who may have it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Literal

import jinja2
from huggingface_hub import DatasetCardData

from vividmed.data.terms import DatasetTerms, Terms
from vividmed.errors import VividMedError

REDISTRIBUTION_NOTICE = "May not be redistributed"

_KINDS: dict[str, tuple[str, list[str]]] = {
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
}
_NOTICE = {
    "no": "The terms of the source forbid passing the data on. Obtain it from the source and prepare it yourself; "
    "this copy is for those who hold it under the same terms.",
    "derived_gated": "What is made from the source may be shared only with people who accepted its terms, one by one. "
    "This copy is for them.",
}
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))

# Identifiers that the Hub knows as licences of data; any other licence is named "other" with its own name beside it.
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


@dataclass(frozen=True, kw_only=True)
class DatasetFacts:
    """What a card says about a prepared data set.

    Attributes:
        title: as the authors call the data set.
        kind: of the rows.
        terms: of the data: an adapter or :class:`~vividmed.data.terms.DatasetTerms`.
        data_files: path pattern of the Parquet files, by configuration and split.
        rows: number of rows by split.
        modality_rows: number of rows by modality and split; a missing split counts as 0.
        target_rows: number of rows in which a target is present, by target and split.
        histograms: name of a PNG file in the folder by its caption.
        preparation: how the rows were made: program, version, settings; Markdown.
    """

    title: str
    kind: Literal["vision_language", "localization", "grounded_report"]
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
        VividMedError: if there is no split, or counts name a split that is not there.
    """
    terms = DatasetTerms.of(facts.terms)
    _check_splits(facts)
    kind_text, _ = _KINDS[facts.kind]
    tables = {"modality": facts.modality_rows, "target": facts.target_rows}
    # StrictUndefined: a card with a hole is worse than none.
    environment = jinja2.Environment(keep_trailing_newline=True, undefined=jinja2.StrictUndefined)
    environment.filters["cell"] = _cell
    template = resources.files("vividmed.hub").joinpath("dataset_card.md.jinja").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        card_data=_metadata(facts, terms).to_yaml(),
        title=facts.title,
        kind=facts.kind,
        kind_text=kind_text,
        terms=terms,
        access_text=_ACCESS[terms.access],
        notice="" if terms.redistribute == "yes" else REDISTRIBUTION_NOTICE,
        notice_text=_NOTICE.get(terms.redistribute, ""),
        first_split=next(iter(facts.rows)),
        rows=facts.rows,
        tables={heading: _table(counts, facts.rows) for heading, counts in tables.items() if counts},
        histograms=facts.histograms,
        preparation=facts.preparation.strip(),
    )


def hub_licence(licence: str) -> str:
    """The Hub's identifier of a licence such as "CC BY-NC-SA 4.0"; ``other`` if it has none."""
    slug = _slug(licence)
    return slug if slug in _HUB_LICENCES else "other"


def _metadata(facts: DatasetFacts, terms: DatasetTerms) -> DatasetCardData:
    licence = hub_licence(terms.licence)
    details: dict[str, Any] = {}
    if licence == "other":
        details = {"license_name": _slug(terms.licence), "license_link": terms.homepage}
    modalities = [_slug(name) for name in facts.modality_rows]
    return DatasetCardData(
        pretty_name=facts.title,
        language="en",
        license=licence,
        task_categories=_KINDS[facts.kind][1],
        tags=["medical", "radiology", *modalities, f"access-{terms.access}", "vividmed"],
        size_categories=_size_category(sum(facts.rows.values())),
        configs=[
            {
                "config_name": config,
                "data_files": [{"split": split, "path": path} for split, path in paths.items()],
            }
            for config, paths in facts.data_files.items()
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
    """One line a name and one number a split, the most frequent name first."""
    order = sorted(counts, key=lambda name: (-sum(counts[name].values()), name))
    return {name: [counts[name].get(split, 0) for split in splits] for name in order}


def _size_category(rows: int) -> str:
    return next((name for limit, name in _SIZES if rows < limit), "n>1M")


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")


def _cell(text: str) -> str:
    """Text that does not break a Markdown table."""
    return " ".join(str(text).split()).replace("|", "\\|")
