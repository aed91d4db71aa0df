"""Which data sets a stage is trained on, with which weights, as a YAML file says it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

import yaml

from vividmed.data.conversations.settings import SETTINGS_OF_KIND, ConversationSettings
from vividmed.errors import VividMedError


@dataclass(frozen=True, kw_only=True)
class MixtureEntry:
    """One data set of a mixture.

    Attributes:
        name: of the data set, unique in the mixture.
        kind: of its rows, see :mod:`vividmed.data.schema`.
        path: folder or Hub repository; None for ``<root>/<name>`` of the mixture.
        config: configuration of the repository, where it has several.
        split: to draw from.
        revision: commit of the repository.
        weight: factor on the number of cases; a data set is drawn in proportion to the product.
        rows_per_case: rows that a case gives, such as one for each sequence of an MRI examination.
        negative_fraction: share of draws from this data set that go to rows without a positive finding; None takes
            them as they come. See :func:`vividmed.data.sampling.mixture.negative_rows`.
        num_rows: rows of the split, for streams that do not state it.
        conversation: how conversations about its rows are drawn.
    """

    name: str
    kind: str
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
        if self.kind not in SETTINGS_OF_KIND:
            raise VividMedError(f"{self.name}: kind is {self.kind!r}; use {', '.join(SETTINGS_OF_KIND)}")
        if not _is_positive(self.weight):
            raise VividMedError(
                f"{self.name}: weight is {self.weight!r}; give a number above 0, or drop the data set"
            )
        if type(self.rows_per_case) is not int or self.rows_per_case < 1:
            raise VividMedError(
                f"{self.name}: rows_per_case is {self.rows_per_case!r}; give a whole number from 1"
            )
        fraction = self.negative_fraction
        if fraction is not None and not (_is_positive(fraction) and fraction < 1):
            raise VividMedError(
                f"{self.name}: negative_fraction is {fraction!r}; give a number between 0 and 1, both excluded, so "
                "that no row is dropped"
            )
        if self.num_rows is not None and not _is_positive(self.num_rows):
            raise VividMedError(
                f"{self.name}: num_rows is {self.num_rows!r}; give the number of rows of the split"
            )

    def mass(self, num_rows: int) -> float:
        """What the probability of drawing from the data set is proportional to."""
        return self.weight * num_rows / self.rows_per_case


@dataclass(frozen=True, kw_only=True)
class MixtureConfig:
    """A mixture of data sets.

    Attributes:
        entries: the data sets.
        seed: of the order and of every conversation.
        root: folder or Hub organisation that holds the data sets without a path of their own.
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

    @classmethod
    def from_yaml(cls, path: Path | str, *, root: str | None = None) -> Self:
        """Read a mixture, or the mixture that a stage's configuration names with ``mixture: FILE``.

        The file has ``datasets``, a list of the fields of :class:`MixtureEntry`, and optionally ``seed``, ``root`` and
        ``conversation``: settings by kind of row, which an entry's own ``conversation`` adds to.

        Args:
            path: the file; a path inside it is relative to it.
            root: replaces the file's root.

        Raises:
            VividMedError: naming the file and the field at fault.
        """
        path = Path(path)
        content = _read(path)
        if "datasets" not in content and isinstance(content.get("mixture"), str):
            return cls.from_yaml(path.parent / content["mixture"], root=root)
        known = ("datasets", "seed", "root", "conversation")
        if unknown := [key for key in content if key not in known]:
            raise VividMedError(f"{path}: {unknown[0]!r} is not understood; use {', '.join(known)}")
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

    def location(self, entry: MixtureEntry) -> str:
        """Folder or repository of an entry.

        Raises:
            VividMedError: neither the entry nor the mixture says where the data set is.
        """
        if entry.path is not None:
            return entry.path
        if self.root is None:
            raise VividMedError(
                f"{entry.name}: no path is given and the mixture has no root; name the folder or Hub organisation that "
                "holds the prepared data sets as root"
            )
        return f"{self.root.rstrip('/')}/{entry.name}"


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise VividMedError(f"{path}: cannot be read ({error.strerror}); name a mixture file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise VividMedError(f"{path}: is no YAML ({' '.join(str(error).split())}); correct it") from error
    if not isinstance(content, Mapping):
        raise VividMedError(f"{path}: holds no settings; see docs/conversations.md for the form of a mixture")
    return content


def _entry(values: Any, number: int, common: Mapping[str, Mapping[str, Any]], path: Path) -> MixtureEntry:
    if not isinstance(values, Mapping) or not isinstance(values.get("name"), str):
        raise VividMedError(f"datasets[{number}] has no name; give name and kind")
    name = values["name"]
    known = [setting.name for setting in fields(MixtureEntry)]
    if unknown := [key for key in values if key not in known]:
        raise VividMedError(f"{name}: {unknown[0]!r} is not understood; use {', '.join(known)}")
    if "kind" not in values:
        raise VividMedError(f"{name}: 'kind' is missing; use {', '.join(SETTINGS_OF_KIND)}")
    entry = MixtureEntry(**{key: value for key, value in values.items() if key != "conversation"})
    own = values.get("conversation") or {}
    if not isinstance(own, Mapping):
        raise VividMedError(f"{name}: conversation is {own!r}; give settings and their values")
    settings = SETTINGS_OF_KIND[entry.kind].from_mapping(
        {**common.get(entry.kind, {}), **own}, where=f"{path}: {name}: conversation"
    )
    if entry.path is not None and (path.parent / entry.path).is_dir():
        entry = replace(entry, path=str(path.parent / entry.path))
    changed: dict[str, Any] = {entry.kind: settings}
    return replace(entry, conversation=replace(entry.conversation, **changed))


def _conversations(values: Any, where: str) -> Mapping[str, Mapping[str, Any]]:
    """Settings by kind of row, checked, those of the file alone."""
    if not isinstance(values, Mapping) or not all(isinstance(v, Mapping) for v in values.values()):
        raise VividMedError(f"{where} is {values!r}; give settings under {', '.join(SETTINGS_OF_KIND)}")
    for kind, settings in values.items():
        if kind not in SETTINGS_OF_KIND:
            raise VividMedError(f"{where}: {kind!r} is not a kind of row; use {', '.join(SETTINGS_OF_KIND)}")
        SETTINGS_OF_KIND[kind].from_mapping(settings, where=f"{where}: {kind}")
    return values


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")
