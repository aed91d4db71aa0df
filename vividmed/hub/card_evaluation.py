"""Figures of an evaluation on a model card: a section for people, and ``model-index`` data for the Hub."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from vividmed.errors import VividMedError
from vividmed.files import write_atomically
from vividmed.hub.markdown import one_line

_BEFORE = re.compile(r"^## (?:Use|Limits)\b", re.MULTILINE)


def add_evaluation(
    model: Path,
    section: str,
    figures: Mapping[str, float],
    *,
    task: str,
    dataset: str,
    split: str,
) -> Path:
    """Put an evaluation on a model's card; an earlier one of the same task, data set and split is replaced.

    Args:
        model: folder of the model; its ``README.md`` is the card.
        section: Markdown with a heading of the second level.
        figures: values by name, for the metadata.
        task: what the model was asked for.
        dataset: name of the data set; of a path, only its last part is written.
        split: its split.

    Returns:
        Path of the card.

    Raises:
        VividMedError: there is no card, or it cannot be read or written.
    """
    path = model / "README.md"
    if not path.is_file():
        raise VividMedError(
            f"--card {model}: has no README.md; name the folder of a trained model with its card"
        )
    try:
        card = ModelCard(path.read_text(encoding="utf-8"), ignore_metadata_errors=False)
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:200]
        raise VividMedError(
            f"{path}: cannot be read as a model card ({reason}); correct its metadata"
        ) from error
    data: ModelCardData = card.data  # type: ignore[assignment]
    name = one_line(Path(dataset).name or dataset)
    key = one_line(f"{task}, {name}, {split}").replace("--", "-")
    start, end = f"<!-- evaluation: {key} -->", f"<!-- end of evaluation: {key} -->"
    text = re.sub(rf"{re.escape(start)}.*?{re.escape(end)}\n*", "", card.text, flags=re.DOTALL)
    block = f"{start}\n{section.strip()}\n{end}\n\n"
    place = _BEFORE.search(text)
    position = place.start() if place else len(text)
    text = text[:position].rstrip("\n") + "\n\n" + block + text[position:]
    kept = [
        each
        for each in data.eval_results or []
        if (each.task_name, each.dataset_name, each.dataset_split) != (task, name, split)
    ]
    data.eval_results = kept + [
        EvalResult(
            task_type="image-text-to-text",
            task_name=task,
            dataset_type=re.sub(r"[^\w./-]+", "-", name).strip("-") or "dataset",
            dataset_name=name,
            dataset_split=split,
            metric_type=figure,
            metric_name=figure.replace("_", " "),
            metric_value=round(float(value), 4),
        )
        for figure, value in figures.items()
    ]
    data.model_name = data.model_name or model.resolve().name
    metadata = data.to_yaml(line_break="\n")
    write_atomically(path, f"---\n{metadata}\n---\n{_with_line_before(text)}")
    return path


def _with_line_before(text: str) -> str:
    return "\n" + text.lstrip("\n")


def figures_for_card(figures: Mapping[str, Any]) -> dict[str, float]:
    """Figures over all items, without those of single targets and without NaN."""
    return {
        name: figure.value
        for name, figure in figures.items()
        if "/" not in name and figure.value == figure.value
    }
