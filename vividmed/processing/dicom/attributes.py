"""Header fields of one frame, read strictly: a malformed number is an error that names its field."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from vividmed.errors import VividMedError
from vividmed.processing.file_errors import BROKEN_FILE, first_line

_GROUPS = (
    "PixelValueTransformationSequence",
    "FrameVOILUTSequence",
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelMeasuresSequence",
)
"""Functional groups of enhanced multi-frame files whose fields are used."""


class FrameAttributes:
    """Fields of one frame: those of the file, overruled by those of all frames, overruled by those of the frame.

    Args:
        dataset: the file.
        frame: index of the frame, counted from 0.
        source: the file's name, for errors.
    """

    def __init__(self, dataset: Dataset, frame: int, source: str):
        self.source = source
        self._datasets = [dataset]
        groups = list(dataset.get("SharedFunctionalGroupsSequence") or [])
        per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
        groups += [per_frame[frame]] if frame < len(per_frame) else []
        for group in groups:
            for name in _GROUPS:
                self._datasets += list(group.get(name) or [])

    def get(self, keyword: str) -> Any:
        """Value of a field; None if it is missing or empty.

        Raises:
            VividMedError: the value does not follow the field's format.
        """
        for dataset in reversed(self._datasets):
            try:
                value = dataset.get(keyword)
            except BROKEN_FILE as error:
                raise self._malformed(keyword, first_line(error)) from error
            if value is not None and not (hasattr(value, "__len__") and len(value) == 0):
                return value
        return None

    def numbers(self, keyword: str, count: int | None) -> tuple[float, ...] | None:
        """Values of a numeric field; None if it is missing or empty.

        Args:
            keyword: name of the field.
            count: how many values it needs; None accepts any number.

        Raises:
            VividMedError: a value is not a finite number, or there are more or fewer values.
        """
        value = self.get(keyword)
        if value is None:
            return None
        try:
            values = tuple(float(item) for item in _as_list(value))
        except (TypeError, ValueError) as error:
            raise self._malformed(keyword, first_line(error)) from error
        if count is not None and len(values) != count:
            raise self._malformed(keyword, f"{len(values)} values where {count} are needed")
        if not np.isfinite(values).all():
            raise self._malformed(keyword, "not a finite number")
        return values

    def number(self, keyword: str) -> float | None:
        """Value of a field with one number; None if it is missing or empty."""
        values = self.numbers(keyword, 1)
        return None if values is None else values[0]

    def _malformed(self, keyword: str, reason: str) -> VividMedError:
        return VividMedError(
            f"{self.source}: DICOM field {keyword} is malformed ({reason}); correct the header or export the file again"
        )


def _as_list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [value]
