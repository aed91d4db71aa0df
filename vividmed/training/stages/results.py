"""Files that every stage writes next to its model: card, configuration, provenance."""

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from vividmed.data.sampling.mixture import Mixture
from vividmed.data.sampling.mixture_stream import MixtureStream
from vividmed.data.taxonomy_files import save_taxonomy
from vividmed.files import packaged_folder, write_atomically
from vividmed.hub.base_model import is_hub_id
from vividmed.hub.cards import RunFacts, SourceCount, count_modalities, count_sources, render_model_card
from vividmed.training.runs.provenance import stream_sources
from vividmed.training.settings.arguments import DataArguments, StageArguments
from vividmed.training.settings.resolved_config import resolved_config
from vividmed.training.trainer import VividMedTrainer
from vividmed.version import __version__

CARDS = packaged_folder("model_cards")


def write_results(
    stage: str,
    trainer: VividMedTrainer,
    *,
    template: str,
    groups: Sequence[Any],
    rows: tuple[Any, Any],
    held_out: str,
    how: Mapping[str, Any],
    settings: Mapping[str, Any],
    step: int,
    metrics: Mapping[str, str],
    figures: Mapping[str, float],
) -> None:
    """Write the model card and the settings of the run.

    Args:
        stage: name of the stage.
        trainer: after training.
        template: of the card, a file of ``model_cards/``.
        groups: the run's arguments.
        rows: to train on, and to evaluate on or None.
        held_out: what the rows to train and to evaluate on have in common, in a sentence.
        how: ``base_model``, ``method`` and ``adapter`` of the card.
        settings: of the stage, for the card.
        step: optimizer step of the weights in the folder.
        metrics: figures of these weights, in words.
        figures: the same as numbers.
    """
    args = trainer.args
    train_rows, eval_rows = rows
    dataset, split = _evaluated_on(groups, eval_rows)
    facts = RunFacts(
        name=args.folder.name,
        stage=stage,
        sources=_sources(train_rows),
        eval_sources=_sources(eval_rows),
        held_out=held_out,
        steps=trainer.state.global_step,
        global_batch_size=trainer.rows_per_step,
        settings={
            "learning rate": args.learning_rate,
            "schedule": f"{args.lr_scheduler_type.value}, {args.get_warmup_steps(trainer.state.max_steps)} warm-up steps",
            "weight decay": args.weight_decay,
            **settings,
            "weights": f"{sum(parameter.numel() for parameter in trainer.model.parameters()):,}",
            "seed": args.seed,
            **({} if step == trainer.state.global_step else {"step of these weights": step}),
        },
        metrics=metrics,
        versions={
            "vividmed": __version__,
            "transformers": transformers.__version__,
            "torch": torch.__version__,
            "Python": platform.python_version(),
        },
        provenance=list(trainer.provenance or ()),
        modalities=_modalities(train_rows),
        figures=figures,
        eval_dataset=dataset,
        eval_split=split,
        **how,
    )
    folder = args.folder
    write_atomically(folder / "README.md", render_model_card(CARDS / template, facts))
    save_taxonomy(folder)
    write_atomically(folder / "config.yaml", resolved_config([StageArguments(stage), *groups]))


def _modalities(rows: Any) -> dict[str, int]:
    """Rows by modality; of a mixture of its data sets together, of a stream unknown."""
    counts: Counter[str] = Counter()
    if not isinstance(rows, MixtureStream):
        for part in rows.rows if isinstance(rows, Mixture) else [rows]:
            counts.update(count_modalities(part))
    return dict(counts.most_common())


def _evaluated_on(groups: Sequence[Any], rows: Any) -> tuple[str, str]:
    """Name and split of the data set that was evaluated on; of a folder, only its own name."""
    args = next((group for group in groups if isinstance(group, DataArguments)), None)
    if rows is None or args is None:
        return "", ""
    name = args.dataset_name or "embedded sample"
    return name if is_hub_id(name) else Path(name).name, args.eval_split


def _sources(rows: Any) -> list[SourceCount]:
    """Sources of a data set, of all data sets of a mixture, or of none; of a stream, its data sets themselves."""
    if isinstance(rows, MixtureStream):
        return [
            SourceCount(source or "", licence or "unknown", size)
            for (source, licence), size in zip(stream_sources(rows), rows.sizes, strict=True)
        ]
    parts = rows.rows if isinstance(rows, Mixture) else [] if rows is None else [rows]
    return [count for part in parts for count in count_sources(part)]
