"""Finding labels of report data sets; *uncertain* and *not mentioned* are kept apart from *absent*."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vividmed.data.taxonomy import Taxonomy
from vividmed.errors import VividMedError

CHEXPERT_TARGETS = {
    "Enlarged Cardiomediastinum": "widened mediastinum",
    "Cardiomegaly": "cardiomegaly",
    "Lung Opacity": "pulmonary opacification",
    "Lung Lesion": "lung lesion",
    "Edema": "pulmonary edema",
    "Consolidation": "pulmonary consolidation",
    "Pneumonia": "pneumonia",
    "Atelectasis": "atelectasis",
    "Pneumothorax": "pneumothorax",
    "Pleural Effusion": "pleural effusion",
    "Fracture": "fracture",
    "Support Devices": "support device",
}
"""Columns of CheXpert and MIMIC-CXR label files. ``Pleural Other`` is left out: it names no single target."""

NO_FINDING = "No Finding"

CT_RATE_TARGETS = {
    "Medical material": "support device",
    "Arterial wall calcification": "arterial calcification",
    "Cardiomegaly": "cardiomegaly",
    "Pericardial effusion": "pericardial effusion",
    "Coronary artery wall calcification": "coronary artery calcification",
    "Hiatal hernia": "hiatal hernia",
    "Lymphadenopathy": "lymphadenopathy",
    "Emphysema": "pulmonary emphysema",
    "Atelectasis": "atelectasis",
    "Lung nodule": "lung nodule",
    "Lung opacity": "pulmonary opacification",
    "Pulmonary fibrotic sequela": "pulmonary fibrotic sequela",
    "Pleural effusion": "pleural effusion",
    "Mosaic attenuation pattern": "mosaic attenuation",
    "Peribronchial thickening": "peribronchial thickening",
    "Consolidation": "pulmonary consolidation",
    "Bronchiectasis": "bronchiectasis",
    "Interlobular septal thickening": "interlobular septal thickening",
}
"""Columns of CT-RATE's label files."""


@dataclass(frozen=True)
class FindingLabels:
    """Labels of one study as canonical target names; every target is in exactly one tuple.

    Attributes:
        present: targets stated to be there.
        absent: targets stated not to be there.
        uncertain: targets stated to be possible.
        unmentioned: targets about which nothing is said: neither positive nor negative examples. An absent target that
            a present one implies (a pulmonary opacification where there is a consolidation) is here too.
    """

    present: tuple[str, ...]
    absent: tuple[str, ...]
    uncertain: tuple[str, ...]
    unmentioned: tuple[str, ...]


def parse_chexpert(row: Mapping[str, Any], *, where: str) -> FindingLabels:
    """Read one row of a CheXpert or MIMIC-CXR label file.

    1 is present, 0 absent, -1 uncertain and blank (or NaN) not mentioned. Where ``No Finding`` is 1, blank findings are
    absent; devices, about which it says nothing, stay unmentioned.

    Args:
        row: column to value, as text or number.
        where: how errors name the row.

    Raises:
        VividMedError: A column is missing or contains another value.
    """
    normal = _value(row, NO_FINDING, where) == 1.0

    def state(column: str) -> str:
        value = _value(row, column, where)
        if value is None:
            return "absent" if normal and column != "Support Devices" else "unmentioned"
        return {1.0: "present", 0.0: "absent", -1.0: "uncertain"}[value]

    return _collect(CHEXPERT_TARGETS, state)


def parse_ct_rate(row: Mapping[str, Any], *, where: str) -> FindingLabels:
    """Read one row of a CT-RATE label file: 1 is present, 0 absent; the file has no other value.

    Args:
        row: column to value, as text or number.
        where: how errors name the row.

    Raises:
        VividMedError: A column is missing or contains another value.
    """

    def state(column: str) -> str:
        value = _value(row, column, where)
        if value not in (0.0, 1.0):
            raise VividMedError(f"{where}: column {column!r} contains {row[column]!r}; use 0 or 1")
        return "present" if value else "absent"

    return _collect(CT_RATE_TARGETS, state)


def _collect(targets: Mapping[str, str], state: Callable[[str], str]) -> FindingLabels:
    found: dict[str, list[str]] = {"present": [], "absent": [], "uncertain": [], "unmentioned": []}
    for column, target in targets.items():
        found[state(column)].append(target)
    absent = Taxonomy.load().absent(found["present"], found["absent"])
    found["unmentioned"] += [target for target in found["absent"] if target not in absent]
    found["absent"] = absent
    return FindingLabels(**{key: tuple(names) for key, names in found.items()})


def _value(row: Mapping[str, Any], column: str, where: str) -> float | None:
    """Return -1, 0 or 1, or None for a blank."""
    if column not in row:
        raise VividMedError(
            f"{where}: column {column!r} is missing; take the label file as it is distributed"
        )
    raw = row[column]
    if raw is None or str(raw).strip().lower() in ("", "nan"):
        return None
    try:
        value = float(raw)
    except (TypeError, ValueError):
        value = float("inf")
    if value not in (-1.0, 0.0, 1.0):
        raise VividMedError(f"{where}: column {column!r} contains {raw!r}; use 1, 0, -1 or leave it blank")
    return value
