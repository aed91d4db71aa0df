"""What a grounding stage records for the use of its model: the form of each target, and when a phrase counts as absent.

Forms come from the labels of the training rows. Thresholds come from held-out localization rows, which say of each
target whether it is there: the threshold is the presence score that separates the two best (largest mean of
sensitivity and specificity) among those that keep at least 80 % of what is there.
"""

import json
import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch

from vividmed.data.batches.examples import read_images
from vividmed.data.sampling.mixture import Mixture
from vividmed.data.sampling.mixture_stream import MixtureStream
from vividmed.data.schema import plain_target
from vividmed.errors import VividMedError
from vividmed.files import write_atomically
from vividmed.models.phrases.forms import (
    PhraseForm,
    check_presence_thresholds,
    check_target_forms,
    presence_of_boxes,
    presence_of_masks,
    usable_form,
)
from vividmed.processing.grounded_text import format_grounded_text

logger = logging.getLogger(__name__)

RECORD = "grounding.json"
"""File next to an adapter, whose base model's configuration knows nothing of its training."""
_FIELDS = {"target_forms": check_target_forms, "presence_thresholds": check_presence_thresholds}
_QUANTISED = "quantised_base"
"""Whether the base model was quantised when the thresholds were calibrated."""
_STREAMED_ROWS = 1000
"""Rows of each data set of a stream that are read for the forms of its targets."""
_LEAST = 5
"""Least number of present, and of absent, phrases of a form that a threshold is drawn from."""
_LEAST_SENSITIVITY = 0.8
_QUESTION = "Which of these are in this image?"


def trained_forms(rows: Any) -> dict[str, PhraseForm]:
    """The form of each target that has a label in the training rows.

    Args:
        rows: a ``Dataset``, a ``Mixture`` or a ``MixtureStream`` of kinds of rows that have ``masks`` and ``boxes``. Of
            each data set of a stream, the first rows are read.
    """
    if isinstance(rows, MixtureStream):
        parts: Sequence[Any] = rows.streams
    else:
        parts = rows.rows if isinstance(rows, Mixture) else [rows]
    kinds: dict[str, set[PhraseForm]] = defaultdict(set)
    for part in parts:
        forms: tuple[tuple[str, PhraseForm], ...] = (("masks", "mask"), ("boxes", "box"))
        for column, form in forms:
            for name in _names_in(part, column):
                kinds[plain_target(name)].add(form)
    return {name: "both" if len(forms) > 1 else forms.pop() for name, forms in sorted(kinds.items())}


def _names_in(rows: Any, column: str) -> set[str]:
    """Names of targets in a column of located targets, without decoding what is next to them."""
    if isinstance(rows, datasets.IterableDataset):
        if column not in (rows.column_names or ()):
            return set()
        first = rows.select_columns([column]).take(_STREAMED_ROWS)
        try:
            return {located["target"] for row in first for located in row[column]}
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            logger.warning("forms of targets: the stream cannot be read (%s); they follow the image", error)
            return set()
    if not isinstance(rows, datasets.Dataset) or column not in rows.column_names:
        return set()
    names: set[str] = set()
    for chunk in rows.data.column(column).chunks:
        names.update(chunk.flatten().field("target").unique().to_pylist())
    return names


@dataclass
class PresenceScores:
    """Presence scores of phrases whose presence is known.

    Attributes:
        present: scores of targets that are there, by form.
        absent: scores of targets that are not.
    """

    present: dict[str, list[float]] = field(default_factory=lambda: {"mask": [], "box": []})
    absent: dict[str, list[float]] = field(default_factory=lambda: {"mask": [], "box": []})

    def thresholds(self) -> dict[str, float]:
        """The best threshold of each form that has enough scores and separates them better than chance."""
        found = {form: best_threshold(self.present[form], self.absent[form]) for form in ("mask", "box")}
        return {form: threshold for form, threshold in found.items() if threshold is not None}


def best_threshold(present: Sequence[float], absent: Sequence[float]) -> float | None:
    """The score with the largest mean of sensitivity and specificity, halfway between two scores.

    Only scores that keep at least 80 % of what is present count: a weak model shows too much, not too little.

    Args:
        present: scores of phrases about something that is there.
        absent: scores of phrases about something that is not.

    Returns:
        None with fewer than five scores of either, or where no threshold is better than chance.
    """
    if min(len(present), len(absent)) < _LEAST:
        return None
    scores = np.unique([*present, *absent])
    candidates = (scores[:-1] + scores[1:]) / 2
    sensitivity = (np.asarray(present)[:, None] >= candidates).mean(axis=0)
    specificity = (np.asarray(absent)[:, None] < candidates).mean(axis=0)
    balanced = np.where(sensitivity >= _LEAST_SENSITIVITY, (sensitivity + specificity) / 2, 0.0)
    if not len(candidates) or balanced.max() <= 0.5:
        return None
    # Of equally good thresholds the middle one.
    best = np.flatnonzero(np.isclose(balanced, balanced.max()))
    return float(candidates[best[len(best) // 2]])


@torch.no_grad()
def score_presence(
    model: Any, processor: Any, rows: Sequence[Mapping[str, Any]], *, max_rows: int = 200
) -> PresenceScores:
    """Presence scores of the targets of localization rows.

    Args:
        model: a ``VividMedForCausalLM`` with segmenters.
        processor: its processor.
        rows: held-out localization rows; others have no ``absent`` targets and are passed over.
        max_rows: use only the first rows.
    """
    was_training = model.training
    model.eval()
    scores = PresenceScores()
    for row in _localization_rows(rows, max_rows):
        try:
            _score_row(model, processor, row, scores)
        except VividMedError as error:
            logger.warning("row %s: %s", row["id"], error)
    model.train(was_training)
    return scores


def _localization_rows(rows: Sequence[Mapping[str, Any]], max_rows: int) -> Iterator[Mapping[str, Any]]:
    for index in range(min(len(rows), max_rows)):
        row = rows[index]
        if "absent" in row and "targets" in row:
            yield row


def _score_row(model: Any, processor: Any, row: Mapping[str, Any], scores: PresenceScores) -> None:
    states = dict.fromkeys(row["targets"], True) | dict.fromkeys(row["absent"], False)
    names = [name for name in states if name not in set(row["incomplete"])]
    if not names:
        return
    text, spans = "Results:", []
    for name in names:
        start = len(text) + 1
        spans.append((start, start + len(plain_target(name))))
        text += f" {plain_target(name)}: {'yes' if states[name] else 'no'},"
    messages = [
        {"role": "user", "content": _QUESTION},
        {"role": "assistant", "content": format_grounded_text(text.removesuffix(",") + ".", spans)},
    ]
    batch = processor(images=read_images(row)[:1], conversations=messages, grounding=True).to(model.device)
    for key in ("geometry", "labels", "label_weights"):
        batch.pop(key, None)
    recorded = model.config.target_forms or {}
    form_of_row: PhraseForm = "mask" if row["masks"] else "box" if row["boxes"] else "both"
    forms = [
        usable_form(
            recorded.get(plain_target(name), form_of_row),
            has_masks=model.segmenter is not None,
            has_boxes=model.instance_segmenter is not None,
        )
        for name in names
    ]
    output = model.ground(**batch, forms=[forms])
    for number, (name, form) in enumerate(zip(names, forms, strict=True)):
        of_state = scores.present if states[name] else scores.absent
        if form in ("mask", "both"):
            of_state["mask"].append(float(presence_of_masks(output.masks[0][number])))
        if form in ("box", "both"):
            of_state["box"].append(float(presence_of_boxes(output.box_logits[0][number])))


def calibrate_presence(
    model: Any, processor: Any, rows: Sequence[Mapping[str, Any]], *, max_rows: int = 200
) -> dict[str, float]:
    """Set ``model.config.presence_thresholds`` by held-out localization rows.

    Thresholds of forms that the rows say too little about stay as they are.

    Args:
        model: a ``VividMedForCausalLM`` with segmenters.
        processor: its processor.
        rows: localization rows that the model was not trained on.
        max_rows: use only the first rows.

    Returns:
        The thresholds that were found, by form.
    """
    found = score_presence(model, processor, rows, max_rows=max_rows).thresholds()
    if found:
        model.config.presence_thresholds = {**(model.config.presence_thresholds or {}), **found}
    return found


def write_record(config: Any, folder: Path) -> None:
    """Write what a stage recorded next to the adapter that it trained."""
    record = {name: getattr(config, name) for name in _FIELDS if getattr(config, name)}
    record[_QUANTISED] = getattr(config, "quantization_config", None) is not None
    write_atomically(folder / RECORD, json.dumps(record, indent=1) + "\n")


def read_record(config: Any, folder: Path) -> None:
    """Take over into a configuration what was recorded next to an adapter, if anything was.

    Thresholds that were calibrated with other weights stay, with a warning: those of the base model where the adapter has
    none of its own, and those of an adapter on a quantised base model where the base model is not quantised.

    Raises:
        VividMedError: the record is damaged.
    """
    path, record = folder / RECORD, {}
    if path.is_file():
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            for name, check in _FIELDS.items():
                if record.get(name):
                    check(record[name])
                    setattr(config, name, record[name])
        except (OSError, ValueError, AttributeError) as error:
            raise VividMedError(f"{path}: is damaged ({error}); save the adapter again") from error
    if config.presence_thresholds:
        _warn_of_other_weights(config, record, folder)


def _warn_of_other_weights(config: Any, record: Mapping[str, Any], folder: Path) -> None:
    is_quantised = getattr(config, "quantization_config", None) is not None
    if not record.get("presence_thresholds"):
        calibrated = "without the adapter"
    elif record.get(_QUANTISED, is_quantised) != is_quantised:
        calibrated = f"on a base model that was {'not ' * is_quantised}quantised"
    else:
        return
    logger.warning(
        "%s: the presence thresholds were calibrated %s; calibrate them again with "
        "vividmed.training.presence.calibrate_presence",
        folder,
        calibrated,
    )
