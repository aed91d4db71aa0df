"""How conversations are drawn from rows, for each kind of row."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self, get_args

from vividmed.errors import VividMedError

LabelKind = Literal["mask", "box"]


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """Numbers between 0 and 1 are probabilities, whole numbers are counts; both are checked."""

    def __post_init__(self) -> None:
        for setting in fields(self):
            value = getattr(self, setting.name)
            if setting.type is float and not (_is_number(value) and 0 <= value <= 1):
                raise VividMedError(f"{setting.name} is {value!r}; give a probability from 0 to 1")
            if setting.type is int and not (type(value) is int and value >= 0):
                raise VividMedError(f"{setting.name} is {value!r}; give a whole number from 0")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], *, where: str) -> Self:
        """Settings from a file.

        Args:
            values: setting -> value; what is not named keeps its default.
            where: how messages name the place.

        Raises:
            VividMedError: an unknown setting or an impossible value.
        """
        known = [setting.name for setting in fields(cls)]
        if unknown := [name for name in values if name not in known]:
            raise VividMedError(f"{where}: {unknown[0]!r} is no setting; use {', '.join(known)}")
        try:
            return cls(**values)
        except VividMedError as error:
            raise VividMedError(f"{where}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class LocalizationSettings(_Settings):
    """Conversations about localization rows; the defaults are the published ones.

    Attributes:
        max_present: present targets asked for in a question, per category.
        max_absent: absent targets asked for in a question, per category.
        grounding: probability that the answers are grounded.
        mark_absent: probability that a grounded answer marks absent targets too, which the model learns to ground in
            nothing.
        absent_kind: form of the data set's labels, ``mask`` or ``box``, for rows without any to tell it from. Where
            neither tells, absent targets are not marked.
        modality: probability that the modality is asked first.
        open_anomalies: probability of an open question for all anomalies. Above 0 only for data sets in which every
            anomaly of an image is annotated.
    """

    max_present: int = 12
    max_absent: int = 4
    grounding: float = 0.99
    mark_absent: float = 0.2
    absent_kind: LabelKind | None = None
    modality: float = 0.8
    open_anomalies: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.absent_kind not in (None, *get_args(LabelKind)):
            raise VividMedError(f"absent_kind is {self.absent_kind!r}; use mask or box, or leave it out")


@dataclass(frozen=True, kw_only=True)
class VisionLanguageSettings(_Settings):
    """Conversations about vision-language rows; the defaults are the published ones.

    Attributes:
        modality: probability that the modality is asked first.
        plane: probability that the plane or view is asked first.
        presence_for_report: probability that, of a row with a report and a list of findings, the list is asked for.
        vqa_for_report: probability that, of a row with a report and free questions, the questions are asked.
    """

    modality: float = 0.2
    plane: float = 0.2
    presence_for_report: float = 0.2
    vqa_for_report: float = 0.2


@dataclass(frozen=True, kw_only=True)
class GroundedReportSettings(_Settings):
    """Conversations about grounded reports; the defaults are the published ones.

    Attributes:
        grounding: probability that the report is grounded.
        max_masks: phrases that keep a mask label; the label of others is dropped, their markers stay.
        max_boxes: phrases that keep a box label.
    """

    grounding: float = 0.99
    max_masks: int = 8
    max_boxes: int = 12


@dataclass(frozen=True, kw_only=True)
class ConversationSettings:
    """Settings for each kind of row."""

    localization: LocalizationSettings = field(default_factory=LocalizationSettings)
    vision_language: VisionLanguageSettings = field(default_factory=VisionLanguageSettings)
    grounded_report: GroundedReportSettings = field(default_factory=GroundedReportSettings)


SETTINGS_OF_KIND: Mapping[str, type[_Settings]] = {
    "localization": LocalizationSettings,
    "vision_language": VisionLanguageSettings,
    "grounded_report": GroundedReportSettings,
}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
