"""Which data sets a stage is trained on and how often each is drawn, as a YAML file states it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

import yaml

from vividmed.data.conversations.settings import SETTINGS_BY_ROW_KIND, ConversationSettings
from vividmed.errors import VividMedError
from vividmed.files import or_packaged

_ROW_KINDS = ", ".join(SETTINGS_BY_ROW_KIND)
_FILE_KEYS = ("datasets", "seed", "root", "conversation")
_LARGEST_WEIGHT = 1e12


@dataclass(frozen=True, kw_only=True)
class MixtureEntry:
    """One data set of a mixture.

    Attributes:
        name: name of the data set, unique in the mixture.
        row_kind: kind of its rows, see :mod:`vividmed.data.schema`; ``kind`` in the file.
        path: folder or Hub repository; None for ``<root>/<name>`` of the mixture.
        config: configuration of the repository, if it has several.
        split: split to draw from.
        revision: branch, tag or commit of the repository.
        weight: factor on the number of cases; a data set is drawn in proportion to the product.
        rows_per_case: number of rows that each case gives, such as one per sequence of an MRI examination.
        negative_fraction: share of this data set's draws that go to rows without a positive finding; None takes rows
            as they come. See :func:`vividmed.data.sampling.mixture.negative_rows`.
        num_rows: number of rows of the split, for streams of files that do not state it.
        conversation: how conversations about its rows are drawn.
    """

    name: str
    row_kind: str
    path: str | None = None
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    weight: float = 1.0
    rows_per_case: int = 1
    negative_fraction: float | None = None
    num_rows: int | None = None
    conversation: ConversationSettings = field(default_factory=ConversationSettings)

    def __post_init__(self) -> None:
        if not isinstance(self.row_kind, str) or self.row_kind not in SETTINGS_BY_ROW_KIND:
            raise VividMedError(f"{self.name}: kind is {self.row_kind!r}; use {_ROW_KINDS}")
        for name in ("path", "config", "revision"):
            value = getattr(self, name)
            if value is not None and not _is_text(value):
                raise VividMedError(f"{self.name}: {name} is {value!r}; give a text, or leave it out")
        if not _is_text(self.split):
            raise VividMedError(f"{self.name}: split is {self.split!r}; give the name of a split")
        if not _is_number(self.weight) or not 0 < self.weight <= _LARGEST_WEIGHT:
            raise VividMedError(
                f"{self.name}: weight is {self.weight!r}; give a number above 0, or drop the data set"
            )
        if not _is_count(self.rows_per_case):
            raise VividMedError(
                f"{self.name}: rows_per_case is {self.rows_per_case!r}; give a whole number from 1"
            )
        fraction = self.negative_fraction
        if fraction is not None and not (_is_number(fraction) and 0 < fraction < 1):
            raise VividMedError(
                f"{self.name}: negative_fraction is {fraction!r}; give a number between 0 and 1, both excluded, so "
                "that no row is dropped"
            )
        if self.num_rows is not None and not _is_count(self.num_rows):
            raise VividMedError(
                f"{self.name}: num_rows is {self.num_rows!r}; give the number of rows of the split"
            )

    def mass(self, num_rows: int) -> float:
        """Unnormalised probability of drawing from the data set."""
        return self.weight * num_rows / self.rows_per_case


@dataclass(frozen=True, kw_only=True)
class MixtureConfig:
    """A mixture of data sets.

    Attributes:
        entries: the data sets.
        seed: seed of the order and of every conversation.
        root: folder or Hub organisation that contains the data sets without a path of their own.
    """

    entries: tuple[MixtureEntry, ...]
    seed: int = 42
    root: str | None = None

    def __post_init__(self) -> None:
        names = [entry.name for entry in self.entries]
        if not names:
            raise VividMedError("the mixture has no data sets; list at least one")
        if repeated := next((name for name in names if names.count(name) > 1), None):
            raise VividMedError(f"the mixture lists {repeated} twice; keep one and add up the weights")
        if type(self.seed) is not int or self.seed < 0:
            raise VividMedError(f"seed is {self.seed!r}; give a whole number from 0")
        if self.root is not None and not _is_text(self.root):
            raise VividMedError(
                f"root is {self.root!r}; give a folder or a Hub organisation, or leave it out"
            )

    @classmethod
    def from_yaml(cls, path: Path | str, *, root: str | None = None) -> Self:
        """Read a mixture, or the mixture that a stage's configuration names with ``mixture: FILE``.

        The file has ``datasets``, a list of the fields of :class:`MixtureEntry`, and optionally ``seed``, ``root`` and
        ``conversation``: settings by kind of row, which an entry's own ``conversation`` overrides one by one.

        Args:
            path: the file; paths inside it are relative to its folder.
            root: replaces the file's root.

        Raises:
            VividMedError: the file cannot be read or has a field that is unknown or wrong; the message names both.
        """
        path, content = _follow(Path(path))
        if unknown := [key for key in content if key not in _FILE_KEYS]:
            raise VividMedError(f"{path}: {unknown[0]!r} is not understood; use {', '.join(_FILE_KEYS)}")
        listed = content.get("datasets")
        if not isinstance(listed, list):
            raise VividMedError(f"{path}: 'datasets' is missing; list the data sets of the mixture")
        common = _conversations(content.get("conversation", {}), f"{path}: conversation")
        try:
            entries = tuple(_entry(values, number, common, path) for number, values in enumerate(listed))
            return cls(entries=entries, seed=content.get("seed", cls.seed), root=root or content.get("root"))
        except VividMedError as error:
            text = str(error)
            raise VividMedError(text if text.startswith(str(path)) else f"{path}: {text}") from error

    def entry(self, name: str) -> MixtureEntry:
        """The entry of a data set.

        Raises:
            VividMedError: the mixture has no data set of that name.
        """
        for entry in self.entries:
            if entry.name == name:
                return entry
        raise VividMedError(f"{name!r} is not a data set of the mixture")

    def location(self, entry: MixtureEntry) -> str:
        """Folder or repository of an entry.

        Raises:
            VividMedError: neither the entry nor the mixture says where the data set is.
        """
        if entry.path is not None:
            return entry.path
        if self.root is None:
            raise VividMedError(
                f"{entry.name}: no path is given and the mixture has no root; give one of them"
            )
        return f"{self.root.rstrip('/')}/{entry.name}"


def _follow(path: Path) -> tuple[Path, Mapping[str, Any]]:
    """The mixture that a file contains, or that it names through other files."""
    path = or_packaged(path, "stages/configs")
    visited: list[Path] = []
    while True:
        content = _read(path)
        if "datasets" in content or "mixture" not in content:
            return path, content
        named = content["mixture"]
        if not _is_text(named):
            raise VividMedError(f"{path}: mixture is {named!r}; give the path of a mixture file")
        visited.append(path.resolve())
        following = path.parent / named
        if following.resolve() in visited:
            raise VividMedError(
                f"{path}: names the mixture {named!r}, which leads back to this file; name a file with 'datasets'"
            )
        path = following


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise VividMedError(f"{path}: cannot be read ({error.strerror}); name a mixture file") from error
    except UnicodeDecodeError as error:
        raise VividMedError(f"{path}: is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    except (yaml.YAMLError, ValueError) as error:
        raise VividMedError(
            f"{path}: is not valid YAML ({' '.join(str(error).split())}); correct it"
        ) from error
    except RecursionError as error:
        raise VividMedError(f"{path}: is nested too deeply; correct it") from error
    if not isinstance(content, Mapping):
        raise VividMedError(
            f"{path}: contains no settings; see docs/conversations.md for the form of a mixture"
        )
    return content


def _entry(values: Any, number: int, common: Mapping[str, Mapping[str, Any]], path: Path) -> MixtureEntry:
    if not isinstance(values, Mapping) or not _is_text(values.get("name")):
        raise VividMedError(f"datasets[{number}] has no name; give name and kind")
    name = values["name"]
    known = ["kind" if setting.name == "row_kind" else setting.name for setting in fields(MixtureEntry)]
    if unknown := [key for key in values if key not in known]:
        raise VividMedError(f"{name}: {unknown[0]!r} is not understood; use {', '.join(known)}")
    if "kind" not in values:
        raise VividMedError(f"{name}: 'kind' is missing; use {_ROW_KINDS}")
    plain = {key: value for key, value in values.items() if key not in ("kind", "conversation")}
    entry = MixtureEntry(row_kind=values["kind"], **plain)
    own = values.get("conversation") or {}
    if not isinstance(own, Mapping):
        raise VividMedError(f"{name}: conversation is {own!r}; give settings and their values")
    settings = SETTINGS_BY_ROW_KIND[entry.row_kind].from_mapping(
        {**common.get(entry.row_kind, {}), **own}, where=f"{path}: {name}: conversation"
    )
    if entry.path is not None and _is_folder(path.parent / entry.path):
        entry = replace(entry, path=str(path.parent / entry.path))
    changed: dict[str, Any] = {entry.row_kind: settings}
    return replace(entry, conversation=replace(entry.conversation, **changed))


def _conversations(values: Any, where: str) -> Mapping[str, Mapping[str, Any]]:
    """Settings by kind of row that the file gives for all entries, checked."""
    if not isinstance(values, Mapping) or not all(isinstance(v, Mapping) for v in values.values()):
        raise VividMedError(f"{where} is {values!r}; give settings under {_ROW_KINDS}")
    for row_kind, settings in values.items():
        if row_kind not in SETTINGS_BY_ROW_KIND:
            raise VividMedError(f"{where}: {row_kind!r} is not a kind of row; use {_ROW_KINDS}")
        SETTINGS_BY_ROW_KIND[row_kind].from_mapping(settings, where=f"{where}: {row_kind}")
    return values


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # such as a name that is too long
        return False


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and "\0" not in value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value < 2**53
