"""Parts of predictions that metrics score, with the patient, target and modality of each."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from vividmed.metrics.masks import empty_mask
from vividmed.metrics.predictions import Prediction


@dataclass(frozen=True)
class Group:
    """Items of one target, of one modality, or of one target in one modality; empty fields stand for all."""

    target: str = ""
    modality: str = ""

    def __str__(self) -> str:
        return ", ".join(filter(None, (self.target, self.modality)))


@dataclass
class Selection:
    """Items of a metric; the lists have one entry per item.

    Attributes:
        predicted: predictions, as the metric takes them.
        references: references, as the metric takes them.
        patients: patient of each item.
        targets: target of each item; empty for whole texts.
        modalities: modality of each item's image.
    """

    predicted: list[Any] = field(default_factory=list)
    references: list[Any] = field(default_factory=list)
    patients: list[str] = field(default_factory=list)
    targets: list[str] = field(default_factory=list)
    modalities: list[str] = field(default_factory=list)

    def add(self, predicted: Any, reference: Any, prediction: Prediction, target: str = "") -> None:
        """Append one item of a prediction."""
        self.predicted.append(predicted)
        self.references.append(reference)
        self.patients.append(prediction.patient)
        self.targets.append(target)
        self.modalities.append(prediction.modality)

    def groups(self) -> dict[Group, list[int]]:
        """Numbers of the items by target, then by modality, then by both where a target has several modalities."""
        several = len(set(self.modalities)) > 1
        of_target: dict[str, set[str]] = {}
        for target, modality in zip(self.targets, self.modalities, strict=True):
            of_target.setdefault(target, set()).add(modality)
        found: dict[Group, list[int]] = {}
        for number, (target, modality) in enumerate(zip(self.targets, self.modalities, strict=True)):
            groups = [Group(target=target)]
            groups += [Group(modality=modality)] if several else []
            groups += [Group(target, modality)] if len(of_target[target]) > 1 else []
            for group in groups:
                found.setdefault(group, []).append(number)
        found.pop(Group(), None)
        return dict(
            sorted(found.items(), key=lambda pair: (not pair[0].target, pair[0].target, pair[0].modality))
        )


def texts(predictions: Sequence[Prediction]) -> Selection:
    """Written texts and their references."""
    selection = Selection()
    for each in predictions:
        selection.add(each.prediction, each.reference, each)
    return selection


def texts_with_ids(predictions: Sequence[Prediction]) -> Selection:
    """As :func:`texts`, the references with the id of the item."""
    selection = Selection()
    for each in predictions:
        selection.add(each.prediction, {"id": each.id, "text": each.reference}, each)
    return selection


def answers(predictions: Sequence[Prediction]) -> Selection:
    """As :func:`texts`, the references with the question."""
    selection = Selection()
    for each in predictions:
        selection.add(each.prediction, {"question": each.question, "answer": each.reference}, each)
    return selection


def masks(predictions: Sequence[Prediction]) -> Selection:
    """Masks of present targets; a phrase without a mask is an empty one."""
    selection = Selection()
    for phrase, reference, prediction in _pairs(predictions):
        if reference.mask is not None:
            found = phrase.mask or empty_mask(reference.mask)
            selection.add(found, reference.mask, prediction, reference.target)
    return selection


def boxes(predictions: Sequence[Prediction]) -> Selection:
    """Boxes of targets that have boxes, and of absent ones, whose predictions are false positives."""
    selection = Selection()
    for phrase, reference, prediction in _pairs(predictions):
        if reference.boxes or reference.mask is None:
            selection.add(
                {"boxes": phrase.boxes, "scores": phrase.scores},
                {"boxes": reference.boxes, "target": reference.target},
                prediction,
                reference.target,
            )
    return selection if any(each["boxes"] for each in selection.references) else Selection()


def places(predictions: Sequence[Prediction]) -> Selection:
    """Places of all phrases, present and absent."""
    selection = Selection()
    for phrase, reference, prediction in _pairs(predictions):
        selection.add(phrase.place, reference.place, prediction, reference.target)
    return selection


def reports(predictions: Sequence[Prediction]) -> Selection:
    """Phrases of whole reports with their places."""
    selection = Selection()
    for each in predictions:
        found, true = (
            {
                "phrases": [phrase.text for phrase in phrases],
                "places": [phrase.place for phrase in phrases],
                "size": each.size,
            }
            for phrases in (each.phrases, each.references)
        )
        selection.add(found, true, each)
    return selection


def reports_with_text(predictions: Sequence[Prediction]) -> Selection:
    """As :func:`reports`, with the texts and the direction of the patient's left."""
    selection = reports(predictions)
    for each, said, wanted in zip(predictions, selection.predicted, selection.references, strict=True):
        said |= {"text": each.prediction, "left": each.left}
        wanted |= {"text": each.reference, "left": each.left}
    return selection


def _pairs(predictions: Sequence[Prediction]) -> list[tuple[Any, Any, Prediction]]:
    return [
        (phrase, reference, prediction)
        for prediction in predictions
        for phrase, reference in zip(prediction.phrases, prediction.references, strict=True)
    ]
