"""Best, median and worst cases of a folder of predictions as one HTML page, with their images where they are found."""

import base64
import hashlib
import html
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vividmed.data.batches.examples import read_images
from vividmed.errors import VividMedError
from vividmed.export.overlay import overlay
from vividmed.files import write_atomically
from vividmed.metrics.masks import decode_mask
from vividmed.metrics.metric import nan_mean
from vividmed.metrics.predictions import PlacedPhrase, Prediction
from vividmed.processing.grounded_text import GroundedText, Phrase
from vividmed.processing.medical_image import MedicalImage

PAGE = "gallery.html"
_EACH = 3
_WIDTH = 520
_STYLE = (
    "body{font-family:system-ui,sans-serif;max-width:1150px;margin:2em auto;padding:0 1em;color:#222}"
    ".case{border:1px solid #ccc;border-radius:8px;padding:1em;margin:1em 0}"
    ".sides{display:grid;grid-template-columns:1fr 1fr;gap:1em}.sides img{max-width:100%}"
    "dt{font-weight:600;margin-top:.5em}dd{margin:0}small{color:#666}"
)


def case_scores(predictions: Sequence[Prediction]) -> tuple[str, list[float]]:
    """One figure per case, by which cases are ordered.

    Returns:
        What the figure is, and its values: mean Dice (or best IoU, where there are boxes) over the phrases of task
        ``ground``, token F1 of answers, ROUGE-L of reports. NaN where a case has nothing to score.
    """
    from vividmed.metrics.text import Rouge
    from vividmed.metrics.vqa import TokenF1

    task = predictions[0].task
    if task == "ground":
        return "mean overlap of the phrases", [_overlap(prediction) for prediction in predictions]
    metric, name = (TokenF1(), "token_f1") if task == "vqa" else (Rouge(), "rougeL")
    return name, [metric.score_item(each.prediction, each.reference)[name] for each in predictions]


def write_gallery(predictions: Sequence[Prediction], folder: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write the page.

    Args:
        predictions: of one task.
        folder: where the page goes.
        rows: rows that the predictions are about, images encoded or decoded; may be empty.

    Returns:
        Path of the page.

    Raises:
        VividMedError: the folder cannot be written.
    """
    what, scores = case_scores(predictions)
    counted = [number for number, score in enumerate(scores) if not np.isnan(score)]
    # Equal cases in an order that mixes their kinds, whose ids resemble each other.
    order = sorted(counted, key=lambda i: (scores[i], hashlib.sha256(predictions[i].id.encode()).hexdigest()))
    middle = max(0, len(order) // 2 - _EACH // 2)
    groups = {
        "Best": order[::-1][:_EACH],
        "Median": order[middle : middle + _EACH],
        "Worst": order[:_EACH],
    }
    wanted = {_row_id(predictions[i].id) for group in groups.values() for i in group}
    images = {row["id"]: _image(row) for row in rows if row["id"] in wanted}
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Cases</title><style>{_STYLE}</style>",
        f"<h1>Best, median and worst cases</h1><p>Ordered by {html.escape(what)}; {len(order)} cases. This page contains "
        "images and texts of the data set: share it only as the data may be shared. Not for diagnosis.</p>",
    ]
    for name, group in groups.items():
        parts.append(f"<h2>{name}</h2>")
        parts += [_case(predictions[i], scores[i], images.get(_row_id(predictions[i].id))) for i in group]
    write_atomically(folder / PAGE, "\n".join([*parts, "</html>\n"]))
    return folder / PAGE


def _overlap(prediction: Prediction) -> float:
    from vividmed.metrics.detection import Detection
    from vividmed.metrics.segmentation import dice

    values = []
    for found, true in zip(prediction.phrases, prediction.references, strict=True):
        if true.mask is not None:
            drawn = found.mask
            values.append(0.0 if drawn is None else dice(decode_mask(drawn), decode_mask(true.mask)))
        elif true.boxes:
            (item,) = Detection().score_items(
                [{"boxes": found.boxes, "scores": found.scores}], [{"boxes": true.boxes, "target": ""}]
            )
            values += item["best"]
    return nan_mean(values)


def _row_id(key: str) -> str:
    """Id of the row of an item: without turn and image."""
    return re.sub(r"(?:#\d+)?(?:@\d+)?$", "", key)


def _image(row: Mapping[str, Any]) -> MedicalImage | None:
    try:
        return read_images(row)[0]
    except VividMedError:
        return None


def _case(prediction: Prediction, score: float, image: MedicalImage | None) -> str:
    facts = {
        "question": prediction.question,
        "reference": prediction.reference,
        "prediction": prediction.prediction,
        "failure": prediction.failure or "",
    }
    described = "".join(
        f"<dt>{name}</dt><dd>{html.escape(text)}</dd>" for name, text in facts.items() if text
    )
    pictures = "<p><small>The image was not found.</small></p>"
    if image is not None:
        sides = {"reference": prediction.references, "prediction": prediction.phrases}
        if prediction.task == "ground":
            sides, surplus = _present(prediction)
            if surplus:
                described += f"<dt>drawn although absent</dt><dd>{html.escape(', '.join(surplus))}</dd>"
        elif not any(sides.values()):
            sides = {"image": []}
        pictures = "".join(
            f"<figure>{_picture(image, phrases, empty='' if name == 'image' else 'nothing is marked')}"
            f"<figcaption>{name}</figcaption></figure>"
            for name, phrases in sides.items()
        )
    return (
        f"<section class=case><h3>{score:.3f} <small>{html.escape(prediction.id)}</small></h3><dl>{described}</dl>"
        f"<div class=sides>{pictures}</div></section>"
    )


def _present(prediction: Prediction) -> tuple[dict[str, list[PlacedPhrase]], list[str]]:
    """Phrases that are there, on both sides, and the names of others that were found."""
    pairs = list(zip(prediction.references, prediction.phrases, strict=True))
    present = [(true, found) for true, found in pairs if _has_place(true)]
    surplus = [found.text for true, found in pairs if not _has_place(true) and _has_place(found)]
    sides = {"reference": [true for true, _ in present], "prediction": [found for _, found in present]}
    return sides, surplus


def _has_place(phrase: PlacedPhrase) -> bool:
    return phrase.mask is not None or bool(phrase.boxes)


def _picture(image: MedicalImage, phrases: Sequence[PlacedPhrase], *, empty: str) -> str:
    text, spans = "", []
    for phrase in phrases:
        text += ", " if text else ""
        spans.append((len(text), len(text) + len(phrase.text)))
        text += phrase.text
    placed = [
        Phrase(
            text=phrase.text,
            start=start,
            end=end,
            mask=None if phrase.mask is None else decode_mask(phrase.mask),
            boxes=np.asarray(phrase.boxes, dtype=float).reshape(-1, 6),
            scores=np.asarray(phrase.scores or [1.0] * len(phrase.boxes), dtype=float),
        )
        for phrase, (start, end) in zip(phrases, spans, strict=True)
    ]
    try:
        drawing = overlay(image, GroundedText(text or empty, placed), width=_WIDTH)
    except VividMedError as error:
        return f"<p><small>{html.escape(str(error))}</small></p>"
    buffer = io.BytesIO()
    drawing.save(buffer, "JPEG", quality=82)
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}">'
