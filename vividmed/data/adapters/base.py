"""The interface of adapters: the facts of an original data set and its cases.

Everything that does not differ between data sets is written elsewhere. ``docs/adapters.md`` shows how to write an
adapter.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import ClassVar, TypeVar

from vividmed.data.raw.annotation import Annotation, DrawnMasks, LabelMap, MaskFiles
from vividmed.data.raw.archives import unpack_hint
from vividmed.data.raw.boxes import box_2d
from vividmed.data.raw.case import (
    Case,
    Failed,
    ImageFile,
    Listed,
    QuestionAnswer,
    Skipped,
    Split,
    caption_turn,
    presence_turn,
    report_turn,
    vqa_turns,
)
from vividmed.data.raw.splits import official_split
from vividmed.data.raw.tables import TableRow, column, number, read_table
from vividmed.data.schema import RowKind, numbered
from vividmed.data.terms import Access, Redistribution
from vividmed.errors import VividMedError

__all__ = [
    "Adapter",
    "Annotation",
    "Case",
    "DrawnMasks",
    "Failed",
    "ImageFile",
    "LabelMap",
    "Listed",
    "MaskFiles",
    "QuestionAnswer",
    "Skipped",
    "Split",
    "TableRow",
    "below",
    "box_2d",
    "caption_turn",
    "column",
    "each_case",
    "files",
    "number",
    "numbered",
    "official_split",
    "presence_turn",
    "read_table",
    "register",
    "report_turn",
    "vqa_turns",
]

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_REGISTRY: dict[str, "type[Adapter]"] = {}
_AdapterT = TypeVar("_AdapterT", bound="type[Adapter]")
_T = TypeVar("_T")


class Adapter(ABC):
    """One original data set: its facts as class attributes, and its cases.

    Attributes:
        name: name on the command line: lower case, digits and hyphens.
        title: name that its authors give it.
        row_kind: kind of its rows.
        modalities: modalities that occur, as in :class:`ImageFile`.
        targets: names of the taxonomy that occur in its masks, boxes or labels; empty for free text.
        licence: licence of the data, with its version.
        access: ``open``, ``registered`` (an account or a form), ``credentialed`` (training and a signed agreement), or
            ``internal`` (private data, of which nothing is published).
        redistribute: whether prepared data may be shared: ``yes``; ``no``; or ``derived_gated``: only behind a gate with
            the same terms.
        terms: one sentence on the access terms, printed when sharing is refused; may be empty for ``yes``.
        homepage: address of the data set's page; may be empty for internal data.
        citation: authors, title, venue and year of the publication to cite; may be empty for internal data.
        layout: glob pattern below the origin to the number of files in the complete data set, None if it varies.
        gigabytes: approximate size of the original files.
        patients: name of the data set that the patients belong to, if this one annotates images of another. All images
            of a patient lie in one split across all data sets.
        shares_patients: whether some images are also in other data sets. Their split must then depend on the patient
            only, not on how many patients this data set has. A data set named by ``patients`` shares its patients too.
        published_split: whether cases name an official split.
        split_ratios: share of the patients in each split, for patients without an official one; None lets a hash of
            each patient decide, so that a patient's split depends on nobody else.
        command: command that prepares the data set, for its card; empty for ``vividmed prepare NAME``.
        exclude_minimum: whether intensity limits are computed over the voxels above the smallest value, for scans with
            a padded rim.
        max_depth: largest number of slices kept; None keeps all.
        max_in_plane: largest length of the shorter in-plane edge.
    """

    name: str
    title: str
    row_kind: RowKind = "localization"
    modalities: tuple[str, ...]
    targets: ClassVar[tuple[str, ...]] = ()
    licence: ClassVar[str]
    access: ClassVar[Access]
    redistribute: ClassVar[Redistribution]
    terms: ClassVar[str] = ""
    homepage: ClassVar[str] = ""
    citation: ClassVar[str] = ""
    layout: ClassVar[Mapping[str, int | None]] = MappingProxyType({})
    gigabytes: ClassVar[float] = 0.0
    patients: ClassVar[str | None] = None
    shares_patients: ClassVar[bool] = False
    published_split: bool = False
    split_ratios: Mapping[Split, float] | None = None
    command: str = ""
    exclude_minimum: ClassVar[bool] = False
    max_depth: ClassVar[int | None] = None
    max_in_plane: ClassVar[int] = 512

    @abstractmethod
    def cases(self, origin: Path) -> Iterator[Listed]:
        """Yield every case of the data set, in any order, without reading an image.

        A case whose files are missing is yielded like any other: reading it fails and is reported with its id. Wherever
        a name, a row or a record may be malformed, :func:`each_case` makes the cases, so that one odd entry does not
        stop the others.

        Args:
            origin: folder with the original layout.

        Raises:
            VividMedError: A table of the data set is missing or malformed.
        """

    def patient_key(self, case: Case) -> str:
        """Key of a patient across data sets: ``owner:patient``."""
        return case.patient if ":" in case.patient else f"{self.patients or self.name}:{case.patient}"

    def has_own_patients(self, cases: Iterable[Case]) -> bool:
        """Whether no image of these cases is known to be in another data set too."""
        owners = {adapter.patients for adapter in _REGISTRY.values()}
        if self.shares_patients or self.patients or self.name in owners:
            return False
        return not any(":" in case.patient for case in cases)


def register(adapter: _AdapterT) -> _AdapterT:
    """Class decorator that makes an adapter available under its name."""
    if not _NAME.fullmatch(adapter.name):
        raise ValueError(f"{adapter.name!r} is not a valid adapter name: use lower case, digits and hyphens")
    if _REGISTRY.setdefault(adapter.name, adapter) is not adapter:
        raise ValueError(
            f"two adapters have the name {adapter.name!r}: {_REGISTRY[adapter.name]} and {adapter}"
        )
    return adapter


def registered() -> dict[str, type[Adapter]]:
    """Adapters whose modules have been imported, by name."""
    return dict(_REGISTRY)


def files(origin: Path, pattern: str) -> list[Path]:
    """List matching files and folders, sorted, without the hidden ones that macOS adds to archives.

    Args:
        origin: folder of the data set.
        pattern: glob pattern below it. Names that come from files or tables must be escaped with ``glob.escape``.

    Raises:
        VividMedError: Nothing matches.
    """
    found = sorted(path for path in origin.glob(pattern) if not path.name.startswith("."))
    if not found:
        remedy = unpack_hint(origin) or "give the folder of the original data set"
        raise VividMedError(f"{origin}: contains nothing that matches {pattern}; {remedy}")
    return found


def below(folder: Path, name: str | PurePosixPath) -> Path:
    """Path that a table or record names, relative to a folder.

    Raises:
        VividMedError: The name is empty, or leads out of the folder.
    """
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts or not relative.parts:
        raise VividMedError(f"{str(name)!r} is not a path below {folder}; correct the entry of the table")
    return folder / relative


def each_case(items: Iterable[tuple[str, _T]], make: Callable[[_T], Case | Skipped]) -> Iterator[Listed]:
    """Make a case of each item; an item of which none can be made fails and does not stop the others.

    Args:
        items: id to list a failure under, and what the case is made of: a file, a row, a record.
        make: makes the case of one item.
    """
    for key, item in items:
        try:
            yield make(item)
        except VividMedError as error:
            yield Failed(key, str(error))
        except (ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            yield Failed(key, f"its name or entry is not in the published form ({reason})")
