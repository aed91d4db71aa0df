"""A folder of predictions: one JSON line per item, masks beside it; scored as often as wanted without a model.

```
predictions.jsonl            (or predictions-RANK.jsonl of each process)
masks/<digest of the id>.npz bits of the masks of one item
run.json                     model, protocol, data set and versions
```
"""

import base64
import hashlib
import io
import json
import math
import os
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vividmed.data.masks import check_box
from vividmed.errors import VividMedError
from vividmed.files import write_atomically

Task = Literal["vqa", "report", "ground", "grounded-report"]
TASKS: tuple[Task, ...] = ("vqa", "report", "ground", "grounded-report")
RUN_FILE = "run.json"


@dataclass(kw_only=True)
class PlacedPhrase:
    """A phrase and its place.

    Attributes:
        text: the phrase.
        target: canonical name of what was asked for; empty in generated text.
        mask: in the form of :func:`vividmed.metrics.masks.encode_mask`; None without a mask.
        boxes: voxel corners (z0, y0, x0, z1, y1, x1), half-open.
        scores: one per box; empty for references.
    """

    text: str
    target: str = ""
    mask: dict[str, Any] | None = None
    boxes: list[list[float]] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)

    @property
    def place(self) -> dict[str, Any]:
        """The place as grounding metrics take it: the box with the best score first."""
        order = sorted(range(len(self.scores)), key=lambda number: -self.scores[number])
        return {"mask": self.mask, "boxes": [self.boxes[number] for number in order] or self.boxes}


@dataclass(kw_only=True)
class Prediction:
    """A model's answer about one item, with the reference.

    Attributes:
        id: of the item, unique within the folder.
        patient: items of one patient are resampled together.
        task: what was asked for.
        source: data set.
        modality: of the image.
        question: the prompt.
        reference: text; empty for task ``ground``.
        prediction: text; empty for task ``ground``.
        phrases: of the prediction. For task ``ground`` in the order of ``references``.
        references: phrases of the reference; one without a place is absent from the image.
        size: (D, H, W) voxels of the image.
        left: direction of the patient's left: the axis of the grid, and 1 if it runs to the left or -1 if away from it;
            empty where it is not known.
        failure: why there is no prediction; the item then counts as an empty one.
    """

    id: str
    patient: str
    task: Task
    source: str = ""
    modality: str = ""
    question: str = ""
    reference: str = ""
    prediction: str = ""
    phrases: list[PlacedPhrase] = field(default_factory=list)
    references: list[PlacedPhrase] = field(default_factory=list)
    size: list[int] = field(default_factory=lambda: [1, 1, 1])
    left: list[int] = field(default_factory=list)
    failure: str | None = None


class PredictionWriter:
    """Appends predictions to a folder; safe to interrupt, since an item's line is written last and flushed.

    Args:
        folder: made where missing.
        rank: of the process; each writes its own file.
        world_size: number of processes.
    """

    def __init__(self, folder: Path, *, rank: int = 0, world_size: int = 1):
        name = "predictions.jsonl" if world_size == 1 else f"predictions-{rank:05d}.jsonl"
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._drop_torn_line(folder / name)
            self._stream = (folder / name).open("a", encoding="utf-8")
        except OSError as error:
            raise VividMedError(
                f"{folder}: cannot be written ({error.strerror}); name another folder"
            ) from error

    def __enter__(self) -> "PredictionWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self._stream.close()

    def write(self, prediction: Prediction) -> None:
        """Append one item.

        Raises:
            VividMedError: the folder cannot be written.
        """
        record = asdict(prediction)
        masks: dict[str, np.ndarray] = {}
        for side in ("phrases", "references"):
            for number, phrase in enumerate(record[side]):
                if phrase["mask"] is not None:
                    masks[f"{side}_{number}"] = np.frombuffer(phrase["mask"].pop("bits"), dtype=np.uint8)
        try:
            if masks:
                buffer = io.BytesIO()
                np.savez(buffer, **masks)  # type: ignore[arg-type]
                write_atomically(_mask_file(self.folder, prediction.id), buffer.getvalue())
            self._stream.write(json.dumps(record, ensure_ascii=False) + "\n")
            self._stream.flush()
            os.fsync(self._stream.fileno())
        except OSError as error:
            raise VividMedError(
                f"{self.folder}: cannot be written ({error.strerror}); free some space and run again, which resumes"
            ) from error

    @staticmethod
    def _drop_torn_line(path: Path) -> None:
        """Cut off what a killed run left of its last line."""
        if path.exists():
            content = path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
            if whole != content:
                write_atomically(path, whole)


def read_predictions(folder: Path) -> list[Prediction]:
    """All complete predictions of a folder, sorted by id.

    Raises:
        VividMedError: the folder has none, or a line is not a prediction.
    """
    predictions = sorted(_read(folder), key=lambda prediction: prediction.id)
    if not predictions:
        raise VividMedError(f"{folder}: no predictions found; make them with 'vividmed evaluate predict'")
    return predictions


def read_run(folder: Path) -> dict[str, Any]:
    """What the predictions of a folder come from: model, task, data set, split and protocol; empty if it is not stated."""
    try:
        content = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def predicted_ids(folder: Path) -> set[str]:
    """Ids of the items that need not be predicted again; failures are tried again."""
    return {record["id"] for _, record in _records(folder) if record.get("failure") is None}


def unfinished(folder: Path, predictions: Sequence[Prediction]) -> str:
    """A sentence about predictions that are missing because their run was interrupted; empty if none are."""
    stated = read_run(folder).get("items", len(predictions))
    if stated == len(predictions):
        return ""
    expected = f" of {stated}" if isinstance(stated, int) else ""
    return (
        f"{folder.resolve().name} is incomplete: it has {len(predictions)}{expected} items. Run `vividmed evaluate predict` "
        "again, which adds the others."
    )


def finish_run(folder: Path, items: int) -> None:
    """Write down how many items a finished run has predicted."""
    write_atomically(
        folder / RUN_FILE,
        json.dumps({**read_run(folder), "items": items}, indent=2, ensure_ascii=False) + "\n",
    )


def _read(folder: Path) -> Iterator[Prediction]:
    for where, record in _records(folder):
        try:
            bits = _Masks(folder, str(record["id"]))
            for side in ("phrases", "references"):
                record[side] = [
                    PlacedPhrase(**_with_bits(phrase, bits, f"{side}_{number}"))
                    for number, phrase in enumerate(record.get(side, ()))
                ]
            record |= {name: "" for name in ("source", "modality") if record.get(name) is None}
            prediction = Prediction(**record)
            check_prediction(prediction)
        except VividMedError as error:
            raise VividMedError(f"{where}: {error}") from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = str(error).replace("Prediction.__init__() ", "").replace("PlacedPhrase.__init__() ", "")
            raise VividMedError(
                f"{where}: not a prediction of this version ({reason}); predict into an empty folder"
            ) from error
        yield prediction


def _records(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Lines with where they stand; of an item that failed and succeeded later, the success."""
    kept: dict[str, tuple[str, dict[str, Any]]] = {}
    for path in sorted(folder.glob("predictions*.jsonl")):
        with path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                where = f"{path}: line {number}"
                if not line.endswith(b"\n"):
                    continue  # torn by a kill
                try:
                    record = json.loads(line)
                    key = str(record["id"])
                except (ValueError, KeyError, TypeError, RecursionError) as error:
                    raise VividMedError(f"{where}: not a prediction ({error}); delete the line") from error
                if key in kept and kept[key][1].get("failure") is None:
                    raise VividMedError(
                        f"{where}: the id {key!r} was predicted twice; predict into an empty folder"
                    )
                kept[key] = (where, record)
    yield from kept.values()


def _with_bits(phrase: dict[str, Any], masks: "_Masks", name: str) -> dict[str, Any]:
    if phrase.get("mask") is None:
        return phrase
    return {**phrase, "mask": {**phrase["mask"], "bits": masks[name]}}


class _Masks:
    """Bits of the masks of one item, read when first asked for."""

    def __init__(self, folder: Path, key: str):
        self._path = _mask_file(folder, key)
        self._bits: dict[str, bytes] | None = None

    def __getitem__(self, name: str) -> bytes:
        if self._bits is None:
            try:
                with np.load(self._path, allow_pickle=False) as stored:
                    self._bits = {key: stored[key].tobytes() for key in stored.files}
            except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
                reason = getattr(error, "strerror", None) or error
                raise VividMedError(
                    f"its masks, {self._path.name}, cannot be read ({reason}); copy the folder again, or predict into an "
                    "empty one"
                ) from error
        if name not in self._bits:
            raise VividMedError(f"{self._path.name} lacks the mask {name}; predict into an empty folder")
        return self._bits[name]


def _mask_file(folder: Path, key: str) -> Path:
    digest = base64.b32encode(hashlib.sha256(key.encode()).digest()[:15]).decode().lower()
    return folder / "masks" / f"{digest}.npz"


def check_prediction(prediction: Prediction) -> None:
    """Check what metrics rely on: types of fields, a phrase for each reference, and places on the grid of the image.

    Raises:
        VividMedError: naming the field.
    """
    texts = ("id", "patient", "source", "modality", "question", "reference", "prediction")
    for name in texts:
        if not isinstance(value := getattr(prediction, name), str):
            raise VividMedError(f"field {name!r} is {value!r}; it must be text")
    if prediction.task not in TASKS:
        raise VividMedError(f"unknown task {prediction.task!r}; use one of {', '.join(TASKS)}")
    if len(prediction.size) != 3 or not all(type(edge) is int and edge > 0 for edge in prediction.size):
        raise VividMedError(f"field 'size' is {prediction.size}; it must be three numbers of voxels")
    if prediction.task == "ground" and len(prediction.phrases) != len(prediction.references):
        raise VividMedError(
            f"has {len(prediction.phrases)} phrases for {len(prediction.references)} references; task ground needs one each"
        )
    for phrase in prediction.phrases:
        if len(phrase.scores) != len(phrase.boxes) or not all(map(_is_finite, phrase.scores)):
            raise VividMedError(f"phrase {phrase.text!r}: 'scores' must be a finite number per box")
    for phrase in (*prediction.phrases, *prediction.references):
        _check_place(phrase, prediction.size)


def _check_place(phrase: PlacedPhrase, size: Sequence[int]) -> None:
    where = f"phrase {phrase.text!r}"
    for box in phrase.boxes:
        if len(box) != 6 or not all(map(_is_finite, box)):
            raise VividMedError(f"{where}: the box {box} must be six finite numbers z0, y0, x0, z1, y1, x1")
    if phrase.mask is not None:
        if list(phrase.mask["size"]) != list(size):
            raise VividMedError(
                f"{where}: its mask has {phrase.mask['size']} voxels, but the image {list(size)}; bring it to the image's grid"
            )
        check_box(phrase.mask["box"], size, f"{where}: mask", allow_empty=True)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def match_predictions(
    first: Sequence[Prediction], second: Sequence[Prediction]
) -> tuple[list[Prediction], list[Prediction]]:
    """The items of two folders that both have, in one order.

    Raises:
        VividMedError: they share none, or disagree on a reference.
    """
    others = {prediction.id: prediction for prediction in second}
    pairs = [(one, others[one.id]) for one in first if one.id in others]
    if not pairs:
        raise VividMedError("the two folders share no item; compare predictions on the same rows")
    for one, other in pairs:
        if (one.reference, one.task) != (other.reference, other.task):
            raise VividMedError(f"item {one.id!r} has another reference or task in the other folder")
    return [one for one, _ in pairs], [other for _, other in pairs]
