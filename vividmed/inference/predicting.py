"""Rows of a data set in, a folder of predictions out; see :mod:`vividmed.metrics.predictions`."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch

from vividmed.data import image_grids
from vividmed.data.batches.examples import read_images
from vividmed.data.masks import unpack_mask
from vividmed.errors import VividMedError
from vividmed.inference.grounding import ground_reports
from vividmed.metrics.masks import encode_mask
from vividmed.metrics.predictions import PlacedPhrase, Prediction, Task
from vividmed.metrics.protocol import Protocol as AskingProtocol
from vividmed.processing.grounded_text import GroundedText, Phrase, parse_grounded_text
from vividmed.processing.medical_image import MedicalImage

logger = logging.getLogger(__name__)

_REPORT_KINDS = ("report", "caption")
_FACING_PLANES = ("axial", "coronal", "frontal", "pa", "ap")


class PredictionSink(Protocol):
    """Takes predictions one by one, such as a :class:`~vividmed.metrics.predictions.PredictionWriter`."""

    def write(self, prediction: Prediction) -> None:
        """Take one prediction."""


@torch.no_grad()
def predict_rows(
    model: Any,
    processor: Any,
    rows: Iterable[Mapping[str, Any]],
    *,
    task: Task,
    protocol: AskingProtocol,
    writer: PredictionSink,
    done: frozenset[str] | set[str] = frozenset(),
    batch_size: int = 4,
) -> int:
    """Ask a model about rows and write down what it answers.

    A row that cannot be read, or whose question cannot be asked, becomes a prediction with the reason as ``failure``.

    Args:
        model: a ``VividMedForCausalLM``, with segmenters for the tasks that ground.
        processor: of the model.
        rows: rows of a kind that fits the task; images encoded or decoded.
        task: what is asked.
        protocol: how it is asked.
        writer: where predictions go.
        done: ids of items that are left out.
        batch_size: items answered at once.

    Returns:
        How many items were predicted.

    Raises:
        VividMedError: the model cannot do the task, or the folder cannot be written.
    """
    if task in ("ground", "grounded-report") and model.segmenter is None and model.instance_segmenter is None:
        raise VividMedError(f"--task {task} needs a model with segmenters; this one has none")
    was_training = model.training
    model.eval()
    number = 0
    waiting: list[tuple[Prediction, list[MedicalImage]]] = []
    for item, images in items_of_rows(rows, task, protocol, done):
        number += 1
        if item.failure is not None or (task == "ground" and not item.references):
            writer.write(item)
        else:
            waiting.append((item, images))
            if len(waiting) == batch_size:
                _answer(model, processor, waiting, protocol, writer)
                waiting.clear()
    if waiting:
        _answer(model, processor, waiting, protocol, writer)
    model.train(was_training)
    return number


def items_of_rows(
    rows: Iterable[Mapping[str, Any]],
    task: Task,
    protocol: AskingProtocol,
    done: frozenset[str] | set[str] = frozenset(),
) -> Iterator[tuple[Prediction, list[MedicalImage]]]:
    """Items of the rows with their images; the reason as ``failure`` where there is no image."""
    for row in rows:
        items = [item for item in _items_of_row(row, task, protocol) if item.id not in done]
        if not items:
            continue
        try:
            images = read_images(row)
            if not images:
                raise VividMedError("the row has no image")
            for item in items:
                item.size = list(images[0].size)
                item.left = _left(images[0], row.get("plane"))
                item.references = _references(row, task, images[0].size, images[0].spacing)
        except VividMedError as error:
            logger.warning("row %s: %s", row["id"], error)
            for item in items:
                item.failure = str(error)
                _expect_references(item, row)
            images = []
        if task == "report" and protocol.unit == "image" and len(images) > 1:
            yield from _per_image(items, images, done)
        else:
            yield from ((item, images) for item in items)


def _per_image(
    items: Sequence[Prediction], images: Sequence[MedicalImage], done: frozenset[str] | set[str]
) -> Iterator[tuple[Prediction, list[MedicalImage]]]:
    """Ask about each image of a study by itself, always with the reference of the study."""
    for item in items:
        for number, image in enumerate(images):
            single = replace(item, id=f"{item.id}@{number}", size=list(image.size))
            if single.id not in done:
                yield single, [image]


def _left(image: MedicalImage, plane: str | None) -> list[int]:
    """Direction of the patient's left on the grid: (axis, sign); empty where it is not known.

    A 2D image has it where it is displayed as usual, the patient facing the viewer.
    """
    if not image.oriented:
        return [2, 1] if (plane or "").lower() in _FACING_PLANES else []
    directions = image.affine[:3, :3] / np.linalg.norm(image.affine[:3, :3], axis=0)
    axis = int(np.abs(directions[0]).argmax())
    return [2 - axis, 1 if directions[0, axis] < 0 else -1]


def _items_of_row(row: Mapping[str, Any], task: Task, protocol: AskingProtocol) -> list[Prediction]:
    common: dict[str, Any] = {
        "patient": str(row["patient"]),
        "source": row["source"] or "",
        "modality": row["modality"] or "",
        "task": task,
    }
    if task == "ground":
        return [Prediction(id=row["id"], **common)]
    if "report" in row:
        reference = parse_grounded_text(row["report"]).text
        return [Prediction(id=row["id"], question=protocol.report_prompt, reference=reference, **common)]
    contents = [message["content"] for message in row["messages"]]
    pairs = list(zip(contents[::2], contents[1::2], strict=False))
    # The kind of a row names those of its turns, or the one that all have.
    kinds = row["kind"].split("+")
    kinds = kinds if len(kinds) == len(pairs) else kinds[:1] * len(pairs)
    return [
        Prediction(
            id=row["id"] if len(pairs) == 1 else f"{row['id']}#{turn}",
            question=protocol.report_prompt if task == "report" else protocol.ask(question),
            reference=answer,
            **common,
        )
        for turn, ((question, answer), kind) in enumerate(zip(pairs, kinds, strict=True))
        if (kind in _REPORT_KINDS) == (task == "report")
    ]


def _expect_references(item: Prediction, row: Mapping[str, Any]) -> None:
    """Add what was to be found in an image that cannot be read, if the row states the image's grid."""
    for grid in (row.get(image_grids.COLUMN) or ())[:1]:
        with suppress(VividMedError):  # the masks may be what cannot be read
            item.references = _references(row, item.task, grid["size"], tuple(grid["spacing"]))
            item.size = list(grid["size"])
            if item.task == "ground":
                item.phrases = [PlacedPhrase(text=reference.text) for reference in item.references]


def _references(
    row: Mapping[str, Any], task: Task, size: Sequence[int], spacing: tuple[float, float, float]
) -> list[PlacedPhrase]:
    if task == "ground":
        incomplete = set(row["incomplete"])
        names = [name for name in (*row["targets"], *row["absent"]) if name not in incomplete]
        return [_reference(row, name, (name,), size, spacing) for name in names]
    if task == "grounded-report":
        return [
            _reference(row, phrase["text"], phrase["targets"], size, spacing)
            for phrase in row["phrases"]
            if phrase["targets"]
        ]
    return []


def _reference(
    row: Mapping[str, Any],
    text: str,
    targets: Sequence[str],
    size: Sequence[int],
    spacing: tuple[float, float, float],
) -> PlacedPhrase:
    masks = [unpack_mask(mask, size) for mask in row["masks"] if mask["target"] in targets]
    boxes = [[float(edge) for edge in box["box"]] for box in row["boxes"] if box["target"] in targets]
    mask = None
    if masks:
        union = masks[0].copy()
        for other in masks[1:]:
            union |= other
        mask = encode_mask(union, spacing) if union.any() else None
    return PlacedPhrase(text=text, target=targets[0] if len(targets) == 1 else "", mask=mask, boxes=boxes)


def _ground(model: Any, processor: Any, waiting: Sequence[tuple[Prediction, list[MedicalImage]]]) -> None:
    """Find all named targets of rows in one pass."""
    answers, spans = [], []
    for item, _ in waiting:
        answer, places = "Results:", []
        for reference in item.references:
            start = len(answer) + 1
            answer += f" {reference.text}: yes,"
            places.append((start, start + len(reference.text)))
        answers.append(answer.removesuffix(",") + ".")
        spans.append(places)
    found = ground_reports(model, processor, [images[0] for _, images in waiting], answers, spans)
    for (item, images), text in zip(waiting, found, strict=True):
        item.phrases = [_placed(phrase, images[0]) for phrase in text.phrases]


def _answer(
    model: Any,
    processor: Any,
    waiting: Sequence[tuple[Prediction, list[MedicalImage]]],
    protocol: AskingProtocol,
    writer: PredictionSink,
) -> None:
    """Answer items together, or one by one where together they fail."""
    try:
        if waiting[0][0].task == "ground":
            _ground(model, processor, waiting)
        else:
            _write_texts(model, processor, waiting, protocol)
    except VividMedError as error:
        if len(waiting) > 1:
            for one in waiting:
                _answer(model, processor, [one], protocol, writer)
            return
        writer.write(_fail(waiting[0][0], error))
        return
    for item, _ in waiting:
        writer.write(item)


def _write_texts(
    model: Any,
    processor: Any,
    waiting: Sequence[tuple[Prediction, list[MedicalImage]]],
    protocol: AskingProtocol,
) -> None:
    texts = _generate(model, processor, waiting, protocol)
    for (item, images), text in zip(waiting, texts, strict=True):
        item.prediction = text.text
        item.phrases = [_placed(phrase, images[0]) for phrase in text.phrases]


def _generate(
    model: Any,
    processor: Any,
    waiting: Sequence[tuple[Prediction, list[MedicalImage]]],
    protocol: AskingProtocol,
) -> list[GroundedText]:
    grounding = waiting[0][0].task == "grounded-report"
    batch = processor(
        images=[images for _, images in waiting],
        conversations=[[{"role": "user", "content": item.question}] for item, _ in waiting],
        grounding=grounding,
        **({"images_kwargs": protocol.images} if protocol.images else {}),
    ).to(model.device)
    if grounding:
        return model.generate_grounded(**batch, processor=processor, **protocol.decoding)
    generated = model.generate(**batch, **protocol.decoding)
    length = batch["input_ids"].shape[1]
    if protocol.keep_markers:
        kept = [
            [int(token) for token in row if int(token) != processor.tokenizer.eos_token_id]
            for row in generated[:, length:]
        ]
        return [GroundedText(processor.tokenizer.decode(row)) for row in kept]
    return [GroundedText(text.text) for text in processor.post_process_text(generated, prompt_length=length)]


def _placed(phrase: Phrase, image: MedicalImage) -> PlacedPhrase:
    return PlacedPhrase(
        text=phrase.text,
        mask=None if phrase.mask is None else encode_mask(phrase.mask, image.spacing),
        boxes=phrase.boxes.tolist(),
        scores=phrase.scores.tolist(),
    )


def _fail(item: Prediction, error: VividMedError) -> Prediction:
    logger.warning("item %s: %s", item.id, error)
    item.failure = str(error)
    item.phrases = (
        [PlacedPhrase(text=reference.text) for reference in item.references] if item.task == "ground" else []
    )
    return item
