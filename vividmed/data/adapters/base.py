"""What an adapter says about an original data set; everything that does not differ between sets is written elsewhere.

``docs/adapters.md`` shows how to write one.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar, TypeVar

from vividmed.data.raw.annotation import Annotation, DrawnMasks, LabelMap, MaskFiles
from vividmed.data.raw.archives import unpack_hint
from vividmed.data.raw.case import (
    Case,
    ImageFile,
    QuestionAnswer,
    Skipped,
    Split,
    box_2d,
    caption_turn,
    presence_turn,
    report_turn,
)
from vividmed.data.raw.tables import column, read_table
from vividmed.data.schema import RowKind, numbered
from vividmed.data.terms import Access, Redistribution
from vividmed.errors import VividMedError

__all__ = [
    "Adapter",
    "Annotation",
    "Case",
    "DrawnMasks",
    "ImageFile",
    "LabelMap",
    "MaskFiles",
    "QuestionAnswer",
    "Skipped",
    "Split",
    "box_2d",
    "caption_turn",
    "column",
    "files",
    "numbered",
    "presence_turn",
    "read_table",
    "register",
    "report_turn",
]

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_REGISTRY: dict[str, "type[Adapter]"] = {}
_AdapterT = TypeVar("_AdapterT", bound="type[Adapter]")


class Adapter(ABC):
    """One original data set: its facts as class attributes, and its cases.

    Attributes:
        name: Of the command line: lower case, digits and hyphens.
        title: As its authors call it.
        kind: Of the rows.
        modalities: That occur, as in :class:`ImageFile`.
        targets: Names of the taxonomy that its masks, boxes or labels know; empty for free text.
        licence: Of the data, with its version.
        access: ``open``, ``registered`` (an account or a form), or ``credentialed`` (training and a signed agreement).
        redistribute: May prepared data be shared? ``yes``; ``no``; or ``derived_gated``: only behind a gate with the
            same terms.
        terms: One sentence on the access terms, printed where sharing is refused; may be empty for ``yes``.
        homepage: Address of the data set's page.
        citation: Authors, title, venue and year of the publication to cite.
        layout: Glob pattern below the origin to the number of files in the complete data set, None where it varies.
        gigabytes: Size of the original files, about.
        patients: Name of the data set whose patients these are, for data sets that annotate images of another one.
            Images of a patient lie in one split across all data sets.
        published_split: Whether cases name an official split.
        exclude_minimum: Compute intensity limits over voxels above the smallest value, for scans with a padded rim.
        max_depth: Largest number of slices kept; None keeps all.
        max_in_plane: Largest length of the shorter in-plane edge.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    row_kind: ClassVar[RowKind] = "localization"
    modalities: ClassVar[tuple[str, ...]]
    targets: ClassVar[tuple[str, ...]] = ()
    licence: ClassVar[str]
    access: ClassVar[Access]
    redistribute: ClassVar[Redistribution]
    terms: ClassVar[str] = ""
    homepage: ClassVar[str]
    citation: ClassVar[str]
    layout: ClassVar[Mapping[str, int | None]]
    gigabytes: ClassVar[float]
    patients: ClassVar[str | None] = None
    published_split: ClassVar[bool] = False
    exclude_minimum: ClassVar[bool] = False
    max_depth: ClassVar[int | None] = None
    max_in_plane: ClassVar[int] = 512

    @abstractmethod
    def cases(self, origin: Path) -> Iterator[Case | Skipped]:
        """Every case of the data set, in any order, without reading an image.

        A case whose files are missing is yielded all the same: reading it fails and is reported with its name.

        Args:
            origin: Folder that holds the original layout.

        Raises:
            VividMedError: A table of the data set is missing or lacks a column.
        """

    def patient_key(self, case: Case) -> str:
        """Key of a patient across data sets: ``owner:patient``."""
        return case.patient if ":" in case.patient else f"{self.patients or self.name}:{case.patient}"


def register(adapter: _AdapterT) -> _AdapterT:
    """Class decorator that makes an adapter known by its name."""
    if not _NAME.fullmatch(adapter.name):
        raise ValueError(f"{adapter.name!r} is no adapter name: use lower case, digits and hyphens")
    if _REGISTRY.setdefault(adapter.name, adapter) is not adapter:
        raise ValueError(f"{adapter.name!r} names two adapters: {_REGISTRY[adapter.name]} and {adapter}")
    return adapter


def registered() -> dict[str, type[Adapter]]:
    """Adapters whose modules have been imported, by name."""
    return dict(_REGISTRY)


def files(origin: Path, pattern: str) -> list[Path]:
    """Files and folders that match, sorted, without the hidden ones that archives bring along.

    Args:
        origin: Folder of the data set.
        pattern: Glob pattern below it.

    Raises:
        VividMedError: There are none.
    """
    found = sorted(path for path in origin.glob(pattern) if not path.name.startswith("."))
    if not found:
        remedy = unpack_hint(origin) or "give the folder of the original data set"
        raise VividMedError(f"{origin}: holds nothing that matches {pattern}; {remedy}")
    return found
