"""Model cards: a template and the facts of a run, and nothing that the run did not measure."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from vividmed.hub.base_model import find_base_model_id
from vividmed.hub.markdown import table_cell


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


def count_sources(rows: Any) -> list[SourceCount]:
    """Count rows by their ``source`` and ``licence`` columns, the most frequent first."""
    columns = rows.select_columns(["source", "licence"])
    counts = Counter((row["source"], row["licence"]) for row in columns)
    return [SourceCount(source, licence, number) for (source, licence), number in counts.most_common()]


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
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="image-text-to-text",
        base_model=base_model_id,
        tags=["medical", "radiology", "vividmed", *tags],
    )
    values = {name: _safe(value) for name, value in vars(facts).items()}
    values["base_model"] = base_model_id or (facts.base_model and table_cell(Path(facts.base_model).name))
    values["base_model_source"] = base_model_id or facts.base_model
    return str(ModelCard.from_template(data, template_path=str(template), **values))


def _safe(value: Any) -> Any:
    """Copy in which no text can end the cell of a table that it stands in."""
    if isinstance(value, str):
        return table_cell(value)
    if isinstance(value, SourceCount):
        return SourceCount(table_cell(value.source), table_cell(value.licence), value.rows)
    if isinstance(value, Mapping):
        return {table_cell(key): _safe(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_safe(item) for item in value]
    return value
