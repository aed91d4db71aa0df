"""Settings of the conversations that are drawn from rows, for each kind of row."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, Self, get_args

from vividmed.errors import VividMedError

LabelType = Literal["mask", "box"]


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """Checks settings by their types: floats are probabilities, integers are counts."""

    _old_names: ClassVar[Mapping[str, str]] = {}

    def __post_init__(self) -> None:
        for setting in fields(self):
            value = getattr(self, setting.name)
            if setting.type is float and not (_is_number(value) and 0 <= value <= 1):
                raise VividMedError(f"{setting.name} is {value!r}; give a probability from 0 to 1")
            if setting.type is int and not (type(value) is int and value >= 0):
                raise VividMedError(f"{setting.name} is {value!r}; give a whole number from 0")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], *, where: str) -> Self:
        """Make settings from those of a file.

        Args:
            values: value of each setting; what is left out keeps its default.
            where: place in the file, for messages.

        Raises:
            VividMedError: a setting is unknown or has an impossible value.
        """
        known = [setting.name for setting in fields(cls)]
        values = {cls._old_names.get(name, name): value for name, value in values.items()}
        if unknown := [name for name in values if name not in known]:
            raise VividMedError(f"{where}: {unknown[0]!r} is not a setting; use {', '.join(known)}")
        try:
            return cls(**values)
        except VividMedError as error:
            raise VividMedError(f"{where}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class LocalizationSettings(_Settings):
    """Settings of conversations about localization rows; the defaults are the published ones.

    Attributes:
        max_present: largest number of present targets in a question, per category.
        max_absent: largest number of absent targets in a question, per category.
        grounding: probability that the answers are grounded.
        mark_absent: probability that a grounded answer also marks absent targets, which the model learns to ground in
            nothing.
        absent_label_type: ``mask`` or ``box``: what the data set labels its targets with, used for rows that have no
            label to infer it from. Where neither is known, absent targets are not marked.
        modality: probability that the modality is asked for first.
        open_anomalies: probability of an open question for all anomalies. Set it above 0 only for data sets in which
            every anomaly of an image is annotated.
    """

    max_present: int = 12
    max_absent: int = 4
    grounding: float = 0.99
    mark_absent: float = 0.2
    absent_label_type: LabelType | None = None
    modality: float = 0.8
    open_anomalies: float = 0.0

    _old_names: ClassVar[Mapping[str, str]] = {"absent_kind": "absent_label_type"}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.absent_label_type not in (None, *get_args(LabelType)):
            raise VividMedError(
                f"absent_label_type is {self.absent_label_type!r}; use mask or box, or leave it out"
            )


@dataclass(frozen=True, kw_only=True)
class VisionLanguageSettings(_Settings):
    """Settings of conversations about vision-language rows; the defaults are the published ones.

    Attributes:
        modality: probability that the modality is asked for first.
        plane: probability that the plane or view is asked for first.
        presence_for_report: probability that a row with a report and a list of findings is asked for the list.
        vqa_for_report: probability that a row with a report and free questions is asked the questions.
    """

    modality: float = 0.2
    plane: float = 0.2
    presence_for_report: float = 0.2
    vqa_for_report: float = 0.2


@dataclass(frozen=True, kw_only=True)
class GroundedReportSettings(_Settings):
    """Settings of conversations about grounded reports; the defaults are the published ones.

    Attributes:
        grounding: probability that the report is grounded.
        max_masks: largest number of phrases with a mask label; further phrases lose their label and keep their markers.
        max_boxes: largest number of phrases with a box label.
    """

    grounding: float = 0.99
    max_masks: int = 8
    max_boxes: int = 12


@dataclass(frozen=True, kw_only=True)
class ConversationSettings:
    """Settings of conversations for each kind of row."""

    localization: LocalizationSettings = field(default_factory=LocalizationSettings)
    vision_language: VisionLanguageSettings = field(default_factory=VisionLanguageSettings)
    grounded_report: GroundedReportSettings = field(default_factory=GroundedReportSettings)


SETTINGS_BY_ROW_KIND: Mapping[str, type[_Settings]] = {
    "localization": LocalizationSettings,
    "vision_language": VisionLanguageSettings,
    "grounded_report": GroundedReportSettings,
}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
