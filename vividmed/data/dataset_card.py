"""The README of a prepared data set: what is in it, whose it is, and how it was made."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData

from vividmed.data.adapters.base import Adapter
from vividmed.data.case import SPLITS, Split
from vividmed.data.case_rows import Processing
from vividmed.data.case_store import CaseRecord, write_atomically
from vividmed.data.histograms import draw_histograms
from vividmed.data.intensity import WINDOWS
from vividmed.data.row_statistics import count_targets
from vividmed.version import __version__

_FIGURE = "figures/sizes_and_spacings.png"

_LICENCES = {
    "CC0 1.0": "cc0-1.0",
    "CC BY 3.0": "cc-by-3.0",
    "CC BY 4.0": "cc-by-4.0",
    "CC BY-SA 4.0": "cc-by-sa-4.0",
    "CC BY-NC 4.0": "cc-by-nc-4.0",
    "CC BY-NC-ND 4.0": "cc-by-nc-nd-4.0",
    "CC BY-NC-SA 4.0": "cc-by-nc-sa-4.0",
    "Apache-2.0": "apache-2.0",
    "MIT": "mit",
}
"""Names of licences on the Hub."""

_KINDS = {
    "localization": "Each row is an image with the targets that are present, their masks or boxes, and the targets that "
    "were searched for and are not there.",
    "vision_language": "Each row is a conversation about one or more images.",
    "grounded_report": "Each row is an image with its report, whose phrases refer to masks or boxes.",
}
_ACCESS = {
    "open": "open",
    "registered": "after registration",
    "credentialed": "credentialed users who signed the agreement",
}
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


@dataclass(frozen=True)
class _SplitCounts:
    name: Split
    cases: int
    patients: int
    rows: int
    modalities: Mapping[str, int]
    masks: int
    boxes: int
    words: int


def write_card(
    output: Path,
    adapter: Adapter,
    processing: Processing,
    records: Mapping[Split, Sequence[CaseRecord]],
    failed: Mapping[str, str],
    left_out: Mapping[str, str],
) -> None:
    """Write ``README.md`` and its figure.

    Args:
        output: Folder of the data set.
        adapter: Of the data set.
        processing: Choices of the user.
        records: Of every case, by split.
        failed: Case to reason.
        left_out: Case to reason.
    """
    splits = [_count(split, records[split]) for split in SPLITS if split in records]
    splits = [counts for counts in splits if counts.rows]
    rows = [facts for group in records.values() for record in group for facts in record.rows]
    figure = draw_histograms(rows)
    if figure is not None:
        (output / _FIGURE).parent.mkdir(exist_ok=True)
        write_atomically(output / _FIGURE, figure)
    card = DatasetCard.from_template(
        _metadata(adapter, [counts.name for counts in splits], len(rows)),
        template_str=files("vividmed.data").joinpath("dataset_card.md.jinja").read_text(encoding="utf-8"),
        adapter=adapter,
        rows=len(rows),
        cases=sum(counts.cases for counts in splits),
        kind_text=_KINDS[adapter.kind],
        access_text=_ACCESS[adapter.access],
        splits=splits,
        modalities=sorted({name for counts in splits for name in counts.modalities}),
        targets=count_targets(rows),
        figure=_FIGURE if figure is not None else None,
        failed=failed,
        left_out=left_out,
        window=processing.window,
        window_limits=WINDOWS.get(processing.window or ""),
        version=__version__,
    )
    write_atomically(output / "README.md", str(card).encode())


def _metadata(adapter: Adapter, splits: Sequence[Split], rows: int) -> DatasetCardData:
    licence = _LICENCES.get(adapter.licence)
    fields: dict[str, Any] = {"license": licence or "other"}
    if licence is None:
        fields |= {"license_name": adapter.licence, "license_link": adapter.homepage}
    if adapter.redistribute == "derived_gated":
        fields["extra_gated_prompt"] = adapter.terms
    if splits:
        data_files = [{"split": split, "path": f"data/{split}-*.parquet"} for split in splits]
        fields["configs"] = [{"config_name": "default", "data_files": data_files}]
    return DatasetCardData(
        pretty_name=f"{adapter.title}, prepared for VividMed",
        language="en",
        size_categories=next((name for limit, name in _SIZES if rows < limit), "n>1M"),
        tags=["medical", "vividmed", adapter.kind.replace("_", "-")],
        **fields,
    )


def _count(split: Split, records: Sequence[CaseRecord]) -> _SplitCounts:
    rows = [facts for record in records for facts in record.rows]
    return _SplitCounts(
        name=split,
        cases=sum(bool(record.rows) for record in records),
        patients=len({facts["patient"] for facts in rows}),
        rows=len(rows),
        modalities=Counter(facts["modality"] for facts in rows),
        masks=sum(facts["masks"] for facts in rows),
        boxes=sum(facts["boxes"] for facts in rows),
        words=sum(facts["words"] for facts in rows),
    )
