"""Scores as Markdown, CSV and JSON."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vividmed.metrics.bootstrap import Interval
from vividmed.metrics.scoring import LIBRARIES, Scores
from vividmed.metrics.selection import Group


def to_markdown(
    scores: Scores,
    *,
    title: str = "Evaluation",
    run: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> str:
    """A section for people: figures with 95 % intervals, counts, what was left out.

    Args:
        scores: what was scored.
        title: heading.
        run: what the predictions come from, see :func:`vividmed.metrics.predictions.read_run`.
        notes: sentences above the figures.
    """
    failed = f", {scores.failures} failed and count as empty" if scores.failures else ""
    lines = [
        f"## {title}",
        "",
        f"{_counted(scores.items, 'item')} of {_counted(scores.patients, 'patient')}{failed}. Intervals: 95 %, bootstrap over patients "
        f"({scores.settings.get('bootstrap samples', 0)} samples).",
        "",
        *(line for note in notes for line in (note, "")),
        *_asked(run or {}),
        "| metric | value | interval | n |",
        "|---|--:|--:|--:|",
    ]
    whole = {name: figure for name, figure in scores.figures.items() if name not in scores.groups}
    defined = {name for name, figure in whole.items() if scores.counts[name] and not math.isnan(figure.value)}
    for name, figure in whole.items():
        if name in defined:
            lines.append(
                f"| {_escape(name)} | {_number(figure.value)} | {_range(figure)} | {scores.counts[name]} |"
            )
    lines += _by_group(scores)
    if undefined := [name for name in whole if name not in defined]:
        lines += ["", f"Not defined, because nothing counts: {', '.join(undefined)}."]
    for name, reason in scores.skipped.items():
        lines += ["", f"Left out: {name} ({reason})."]
    for name, scorer in scores.scorers.items():
        facts = ", ".join(f"{key} {value}" for key, value in scorer.items())
        lines += ["", f"Scorer of {name}: {facts}."]
    versions = [f"{name} {value}" for name, value in scores.settings.items() if name in LIBRARIES]
    if versions:
        lines += ["", f"Scored with {', '.join(versions)}."]
    return "\n".join(lines) + "\n"


def _by_group(scores: Scores) -> list[str]:
    """A table with a row per target and modality, and a column per figure."""
    if not scores.groups:
        return []
    names = list(dict.fromkeys(key.partition("/")[0] for key in scores.groups))
    rows: dict[Group, dict[str, str]] = {}
    for key, group in scores.groups.items():
        rows.setdefault(group, {})[key.partition("/")[0]] = key
    lines = ["", f"| target | modality | {' | '.join(names)} | n |", f"|---|---|{'--:|' * (len(names) + 1)}"]
    for group, keys in rows.items():
        values = " | ".join(
            _number(scores.figures[keys[name]].value) if name in keys else "-" for name in names
        )
        count = max(scores.counts[key] for key in keys.values())
        lines.append(f"| {_escape(group.target) or 'all'} | {group.modality or 'all'} | {values} | {count} |")
    return lines


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
    """One line per figure: metric, target, modality, value, low, high, n."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["metric", "target", "modality", "value", "low", "high", "n"])
    for name, figure in scores.figures.items():
        group = scores.groups.get(name, Group())
        metric = name.removesuffix(f"/{group}")
        values = (figure.value, figure.low, figure.high, scores.counts[name])
        writer.writerow([metric, group.target, group.modality, *values])
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
