"""Card of a data set of pseudo-labelled grounded reports: what it contains, and what every step did."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from vividmed.data.pseudo_labels.grounded_rows import RowsResult
from vividmed.data.terms import Access, DatasetTerms, Redistribution, read_all_terms
from vividmed.files import write_atomically
from vividmed.hub.dataset_cards import DatasetFacts, render_dataset_card
from vividmed.hub.markdown import table_cell
from vividmed.version import __version__


def write_pseudo_label_card(result: RowsResult) -> None:
    """Write ``README.md`` next to the shards."""
    terms = joint_terms(read_all_terms(result.output))
    text = render_dataset_card(
        DatasetFacts(
            title=f"{terms.name}, grounded reports by pseudo-labels",
            row_kind="grounded_report",
            terms=terms,
            data_files={"default": {split: f"data/{split}-*.parquet" for split in result.rows}},
            rows=result.rows,
            modality_rows=result.modalities,
            target_rows=result.targets,
            preparation="\n".join(_made(result)),
        )
    )
    write_atomically(result.output / "README.md", text)


def joint_terms(terms: Sequence[DatasetTerms]) -> DatasetTerms:
    """One record for a card: of several data sets the strictest access and redistribution, and all names and licences."""
    if len(terms) == 1:
        return terms[0]
    access = max((each.access for each in terms), key=get_args(Access).index)
    order: list[Redistribution] = ["yes", "derived_gated", "no"]
    return DatasetTerms(
        name=", ".join(each.name for each in terms),
        licence=", ".join(dict.fromkeys(each.licence for each in terms)),
        access=access,
        redistribute=max((each.redistribute for each in terms), key=order.index),
        homepage=", ".join(dict.fromkeys(each.homepage for each in terms)),
        citation="\n\n".join(dict.fromkeys(each.citation for each in terms)),
        terms=" ".join(dict.fromkeys(each.terms for each in terms if each.terms)),
    )


def _made(result: RowsResult) -> list[str]:
    phrases, located = result.phrases
    lines = [
        f"Made by `vividmed ground-reports` of VividMed {__version__}. The places are pseudo-labels: programs and models found "
        "them, and rules, and people where it says so, checked them.",
        "",
        f"Phrases: {phrases}, of which {located} have a place. Patients: {sum(result.patients.values())}.",
        "",
        "| step | studies | figures | rejects |",
        "|---|--:|---|---|",
    ]
    for note in result.history:
        cells = [_listed(note.get("figures", {})), _listed(note.get("rejects", {}))]
        lines.append(
            f"| {note['step']} | {note['studies']} | {' | '.join(table_cell(cell) for cell in cells)} |"
        )
    if result.left_out:
        lines += ["", f"Studies without a row: {_listed(result.left_out)}."]
    lines += ["", *(f"- **{note['step']}.** {table_cell(_settings(note))}" for note in result.history)]
    return lines


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {number}" for name, number in counts.items()) or "none"


def _settings(note: Mapping[str, Any]) -> str:
    """Model, digest of the prompts and localizer of a step, in one line."""
    settings = note.get("settings", {})
    parts = []
    if model := settings.get("model"):
        parts.append(f"language model {model['model']}, prompts {settings.get('prompt')}")
    if localizer := settings.get("localizer"):
        parts.append(f"localizer: {localizer['name']}")
    if "decisions" in settings:
        parts.append(f"{settings['decisions']} decisions by readers")
    if not parts:
        parts.append("by rules")
    return f"{'; '.join(parts)}; version {note.get('version')} of the step, VividMed {note.get('vividmed')}."
