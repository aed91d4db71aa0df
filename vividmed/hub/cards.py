"""Model cards: a template, the facts of a run, and nothing that the run did not measure."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData


@dataclass(frozen=True)
class SourceCount:
    """Rows of a split that come from one source, with the licence it states."""

    source: str
    licence: str
    rows: int


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What a model card says about a training run.

    Attributes:
        name: of the model.
        stage: of the training.
        base_model: Hub id or folder the run started from; None for random weights.
        adapter: whether what was saved is an adapter for the base model.
        method: e.g. "all weights" or "LoRA, rank 64".
        sources: where the training rows come from.
        eval_sources: where the evaluation rows come from.
        steps: optimizer steps done.
        global_batch_size: rows of one step.
        settings: other settings worth naming, by name.
        metrics: measured figures, by name.
        versions: of the libraries used.
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
    settings: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


def count_sources(rows: Any) -> list[SourceCount]:
    """Count rows by their ``source`` and ``licence`` columns, the most frequent first."""
    columns = rows.select_columns(["source", "licence"])
    counts = Counter((row["source"], row["licence"]) for row in columns)
    return [SourceCount(source, licence, number) for (source, licence), number in counts.most_common()]


def render_model_card(template: Path, facts: RunFacts, *, tags: Iterable[str] = ()) -> str:
    """Fill a Jinja template of ``model_cards/``.

    Args:
        template: the template; it sees the fields of ``facts``.
        facts: of the run.
        tags: for the Hub, besides those every card has.

    Returns:
        The card in Markdown with its metadata block.
    """
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="image-text-to-text",
        base_model=facts.base_model,
        tags=["medical", "radiology", "vividmed", *tags],
    )
    return str(ModelCard.from_template(data, template_path=str(template), **vars(facts)))
