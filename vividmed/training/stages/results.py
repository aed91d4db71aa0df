"""What every stage leaves in its output folder beside the model."""

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from vividmed.data.sampling.mixture import Mixture
from vividmed.files import packaged_folder, write_atomically
from vividmed.hub.cards import RunFacts, SourceCount, count_sources, render_model_card
from vividmed.training.arguments import DataArguments, ModelArguments
from vividmed.training.provenance import write_run_provenance
from vividmed.training.resolved_config import resolved_config
from vividmed.training.trainer import VividMedTrainer
from vividmed.version import __version__

_STARTED_FROM = ("model_name_or_path", "segmenter", "instance_segmenter")
CARDS = packaged_folder("model_cards")


def run_facts(
    stage: str,
    trainer: VividMedTrainer,
    *,
    base_model: str | None,
    method: str,
    adapter: bool,
    train_rows: Any,
    eval_rows: Any,
    settings: Mapping[str, Any],
    metrics: Mapping[str, str],
) -> RunFacts:
    """What the model card says."""
    args = trainer.args
    return RunFacts(
        name=args.folder.name,
        stage=stage,
        base_model=base_model,
        adapter=adapter,
        method=method,
        sources=_sources(train_rows),
        eval_sources=_sources(eval_rows),
        steps=trainer.state.global_step,
        global_batch_size=args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
        settings={
            "learning rate": args.learning_rate,
            "schedule": f"{args.lr_scheduler_type.value}, {args.warmup_steps} warm-up steps",
            "weight decay": args.weight_decay,
            **settings,
            "weights": f"{sum(parameter.numel() for parameter in trainer.model.parameters()):,}",
            "seed": args.seed,
        },
        metrics=metrics,
        versions={
            "vividmed": __version__,
            "transformers": transformers.__version__,
            "torch": torch.__version__,
            "Python": platform.python_version(),
        },
    )


def _sources(rows: Any) -> list[SourceCount]:
    """Sources of a data set, of all data sets of a mixture, or of none."""
    parts = rows.rows if isinstance(rows, Mixture) else [] if rows is None else [rows]
    return [count for part in parts for count in count_sources(part)]


def evaluation_metrics(trainer: VividMedTrainer) -> dict[str, str]:
    """Evaluation losses and Dice at the end, beside those at the start where the run has evaluated there."""
    history = [line for line in trainer.state.log_history if "eval_loss" in line]
    if not history or history[-1]["step"] != trainer.state.global_step:
        history.append({"step": trainer.state.global_step, **trainer.evaluate()})
    before = history[0] if history[0]["step"] == 0 else {}
    figures = {}
    for name, value in history[-1].items():
        measured = name.removeprefix("eval_")
        if name.startswith("eval_") and not measured.endswith(("per_second", "runtime")):
            start = f"{before[name]:.3f} before, " if name in before else ""
            figures[f"evaluation {measured.replace('_', ' ').replace('/', ' of ')}"] = (
                f"{start}{value:.3f} after"
            )
    return figures


def how_trained(args: ModelArguments) -> dict[str, Any]:
    """What the model card says of the model's start and of its adapters; arguments of :func:`run_facts`."""
    method = "all weights"
    if args.use_peft:
        bits = "4-bit " if args.load_in_4bit else "8-bit " if args.load_in_8bit else ""
        method = f"low-rank adapters of rank {args.lora_r} on a {bits}base model; norms and embeddings whole"
    return {"base_model": args.model_name_or_path, "method": method, "adapter": args.use_peft}


def write_results(folder: Path, card: Path, facts: RunFacts, arguments: Sequence[Any]) -> None:
    """Write the model card, the settings of the run, and the terms of what went into it where they are known."""
    write_atomically(folder / "README.md", render_model_card(card, facts))
    write_atomically(folder / "config.yaml", resolved_config(list(arguments)))
    (data_args,) = (group for group in arguments if isinstance(group, DataArguments))
    write_run_provenance(
        folder, data_args, [getattr(group, name, None) for group in arguments for name in _STARTED_FROM]
    )
