"""Codes of SNOMED CT for targets of the taxonomy, for DICOM objects that other programs must understand."""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal


@dataclass(frozen=True)
class TargetCode:
    """A target's concept.

    Attributes:
        value: SNOMED CT identifier; empty for a target without a code.
        meaning: name of the concept.
        side: laterality that modifies it, where the concept itself has none.
        origin: where the code was taken from.
    """

    value: str
    meaning: str
    side: Literal["left", "right"] | None = None
    origin: Literal["pydicom", "TotalSegmentator"] = "pydicom"


@cache
def target_codes() -> dict[str, TargetCode]:
    """Codes by canonical name; targets without a code are left out.

    ``data_scripts/snomed_codes.py`` makes the table from pydicom's dictionary of concepts and from the mapping that
    TotalSegmentator publishes, by equality of names.
    """
    entries = json.loads(files("vividmed.data").joinpath("snomed.json").read_text(encoding="utf-8"))
    return {name: TargetCode(**entry) for name, entry in entries.items()}
