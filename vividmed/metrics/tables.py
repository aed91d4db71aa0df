"""Scores as Markdown, CSV and JSON."""

import csv
import io
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vividmed.metrics.bootstrap import Interval
from vividmed.metrics.scoring import LIBRARIES, Scores


def to_markdown(scores: Scores, *, title: str = "Evaluation", run: Mapping[str, Any] | None = None) -> str:
    """A section for people: figures with 95 % intervals, counts, what was left out.

    Args:
        scores: what was scored.
        title: heading.
        run: what the predictions come from, see :func:`vividmed.metrics.predictions.read_run`.
    """
    failed = f", {scores.failures} failed and count as empty" if scores.failures else ""
    lines = [
        f"## {title}",
        "",
        f"{_counted(scores.items, 'item')} of {_counted(scores.patients, 'patient')}{failed}. Intervals: 95 %, bootstrap over patients "
        f"({scores.settings.get('bootstrap samples', 0)} samples).",
        "",
        *_asked(run or {}),
        "| metric | value | interval | n |",
        "|---|--:|--:|--:|",
    ]
    for name, figure in scores.figures.items():
        lines.append(
            f"| {_escape(name)} | {_number(figure.value)} | {_range(figure)} | {scores.counts[name]} |"
        )
    for name, reason in scores.skipped.items():
        lines += ["", f"Left out: {name} ({reason})."]
    for name, scorer in scores.scorers.items():
        facts = ", ".join(f"{key} {value}" for key, value in scorer.items())
        lines += ["", f"Scorer of {name}: {facts}."]
    versions = [f"{name} {value}" for name, value in scores.settings.items() if name in LIBRARIES]
    if versions:
        lines += ["", f"Scored with {', '.join(versions)}."]
    return "\n".join(lines) + "\n"


def _asked(run: Mapping[str, Any]) -> list[str]:
    """Task, data, protocol and its quirks, in sentences."""
    protocol = run.get("protocol")
    if not isinstance(protocol, Mapping) or "task" not in run:
        return []
    dataset = Path(str(run.get("dataset", ""))).name
    lines = [
        f"Task {run['task']}, {_escape(dataset)}, split {_escape(str(run.get('split', '')))}. Protocol "
        f"{_escape(str(protocol.get('name', '')))}: {_escape(str(protocol.get('description', '')))}",
        "",
    ]
    quirks = protocol.get("quirks") or {}
    lines += [f"- {_escape(str(name))}: {_escape(str(reason))}" for name, reason in quirks.items()]
    return [*lines, ""] if quirks else lines


def to_csv(scores: Scores) -> str:
    """One line per figure: metric, target, value, low, high, n."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["metric", "target", "value", "low", "high", "n"])
    for name, figure in scores.figures.items():
        metric, _, target = name.partition("/")
        writer.writerow([metric, target, figure.value, figure.low, figure.high, scores.counts[name]])
    return stream.getvalue()


def to_json(scores: Scores) -> str:
    """Everything, NaN as null."""
    content = asdict(scores)
    content["figures"] = {
        name: {key: None if math.isnan(value) else value for key, value in figure.items()}
        for name, figure in content["figures"].items()
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _counted(number: int, name: str) -> str:
    return f"{number} {name}{'s' * (number != 1)}"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _range(figure: Interval) -> str:
    return "-" if math.isnan(figure.low) else f"{figure.low:.3f} to {figure.high:.3f}"


def _escape(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
