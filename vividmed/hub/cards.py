"""Model cards: a template and the facts of a run, and nothing that the run did not measure."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from jinja2 import Environment, FileSystemLoader

from vividmed.data.terms import DatasetTerms
from vividmed.hub.base_model import find_base_model_id
from vividmed.hub.markdown import one_line, table_cell


@dataclass(frozen=True)
class SourceCount:
    """Rows of a split that come from one source, with the licence it states."""

    source: str
    licence: str
    rows: int


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """Facts about a training run that its model card states.

    Attributes:
        name: name of the model.
        stage: name of the stage.
        base_model: Hub id or folder the run started from; None for random weights.
        base_model_id: its Hub id as the user states it; by default it is looked up, see
            :func:`~vividmed.hub.base_model.find_base_model_id`.
        adapter: whether an adapter for the base model was saved.
        method: what was trained, such as "all weights" or "LoRA, rank 64".
        sources: sources of the training rows.
        eval_sources: sources of the evaluation rows.
        held_out: sentence that says whether patients or images of the evaluation rows were trained on.
        steps: number of optimizer steps.
        global_batch_size: number of rows per step.
        settings: other settings worth naming, by name.
        metrics: measured figures by name.
        versions: versions of the libraries used.
        provenance: terms of everything that the weights come from.
        modalities: number of training rows by modality.
        eval_dataset: name of the data set that was evaluated on.
        eval_split: its split.
        figures: the measured figures as numbers, for the metadata.
        contact: whom to write to; by default the owner of the repository.
    """

    name: str
    stage: str
    base_model: str | None
    adapter: bool
    method: str
    sources: list[SourceCount]
    eval_sources: list[SourceCount]
    steps: int
    global_batch_size: int
    held_out: str = "Whether evaluation rows were held out was not checked."
    settings: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    base_model_id: str | None = None
    provenance: Sequence[DatasetTerms] = ()
    modalities: Mapping[str, int] = field(default_factory=dict)
    eval_dataset: str = ""
    eval_split: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)
    contact: str = ""


def count_sources(rows: Any) -> list[SourceCount]:
    """Count rows by their ``source`` and ``licence`` columns, the most frequent first."""
    columns = rows.select_columns(["source", "licence"])
    counts = Counter((row["source"], row["licence"]) for row in columns)
    return [SourceCount(source, licence, number) for (source, licence), number in counts.most_common()]


def count_modalities(rows: Any) -> dict[str, int]:
    """Count rows by their ``modality`` column, the most frequent first; empty if there is none."""
    if "modality" not in getattr(rows, "column_names", ()):
        return {}
    counts = Counter(str(row["modality"]) for row in rows.select_columns(["modality"]))
    return dict(counts.most_common())


def render_model_card(template: Path, facts: RunFacts, *, tags: Iterable[str] = ()) -> str:
    """Fill a Jinja template of ``model_cards/``.

    A base model that is not known on the Hub is called by the name of its folder and is not in the metadata: the Hub
    refuses paths, and they tell nobody else anything.

    Args:
        template: path of the template. It sees the fields of ``facts``, made safe for cells of tables, and
            ``base_model_source``, which the base model can be loaded from on this machine.
        facts: facts of the run.
        tags: tags for the Hub, besides those that every card has.

    Returns:
        The card in Markdown with its metadata block.
    """
    base_model_id = find_base_model_id(facts.base_model, stated=facts.base_model_id)
    results = _results(facts)
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="image-text-to-text",
        base_model=base_model_id,
        tags=["medical", "radiology", "vividmed", *tags],
        model_name=one_line(facts.name) if results else None,
        eval_results=results or None,
    )
    values = {name: _safe(value) for name, value in vars(facts).items()}
    values["base_model"] = base_model_id or (facts.base_model and table_cell(Path(facts.base_model).name))
    values["base_model_source"] = base_model_id or facts.base_model
    return fill_template(template, data, values)


def fill_template(template: Path, data: ModelCardData, values: Mapping[str, Any]) -> str:
    """Fill a template of ``model_cards/``, which may import others of the folder.

    Args:
        template: its path.
        data: metadata of the card.
        values: what the template names.
    """
    loader = Environment(
        loader=FileSystemLoader(template.parent), keep_trailing_newline=True, autoescape=False
    )
    text = loader.get_template(template.name).render(card_data=data.to_yaml(line_break="\n"), **values)
    return re.sub(r"\n{3,}", "\n\n", str(ModelCard(text)))


def safe_terms(terms: Iterable[DatasetTerms]) -> list[dict[str, str]]:
    """Fields of terms, made safe for cells of tables."""
    return [{name: table_cell(value) for name, value in asdict(each).items()} for each in terms]


def _results(facts: RunFacts) -> list[EvalResult]:
    """Figures for the ``model-index`` of the Hub, which needs to know the data set and split of each."""
    if not facts.eval_dataset:
        return []
    name = one_line(facts.eval_dataset)
    return [
        EvalResult(
            task_type="image-text-to-text",
            dataset_type=re.sub(r"[^\w./-]+", "-", name).strip("-") or "dataset",
            dataset_name=name,
            dataset_split=one_line(facts.eval_split) or None,
            metric_type=one_line(figure),
            metric_name=one_line(figure),
            metric_value=round(float(value), 4),
        )
        for figure, value in facts.figures.items()
        if math.isfinite(value)
    ]


def _safe(value: Any) -> Any:
    """Copy in which no text can end the cell of a table that it stands in."""
    if isinstance(value, str):
        return table_cell(value)
    if isinstance(value, SourceCount):
        return SourceCount(table_cell(value.source), table_cell(value.licence), value.rows)
    if isinstance(value, DatasetTerms):
        return safe_terms([value])[0]
    if isinstance(value, Mapping):
        return {table_cell(key): _safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_safe(item) for item in value]
    return value
