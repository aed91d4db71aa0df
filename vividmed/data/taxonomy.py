"""The anatomical structures and anomalies that the model can be asked for, with synonyms, parents and sides."""

import difflib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from vividmed.data.laterality import has_side, swap_sides
from vividmed.data.taxonomy_files import (
    TAXONOMY_FILE,
    TAXONOMY_VARIABLE,
    merged_entries,
    own_taxonomy_files,
    read_taxonomy_file,
)
from vividmed.errors import VividMedError

Category = Literal["anatomy", "anomaly"]
Laterality = Literal["place", "form", "unpaired"]

_CATEGORIES = ("anatomy", "anomaly")
_LATERALITIES = ("place", "form", "unpaired")
_LISTS = ("synonyms", "parents")


@dataclass(frozen=True, kw_only=True)
class Target:
    """One entry of the taxonomy.

    Attributes:
        name: canonical name, unique; the form in which rows store it.
        category: ``anatomy`` or ``anomaly``.
        synonyms: other terms for it, without the name itself.
        parents: names of what it is a kind or a part of.
        laterality: what *left* and *right* in the name mean; None if the name has no side. ``place``: a side of the
            body, so that a mirrored image shows the counterpart (left kidney). ``form``: a structure recognised by its
            shape, which keeps its name in a mirrored image as it does in situs inversus (left ventricle).
            ``unpaired``: a side without a counterpart, so that a mirrored image has no name for it (right middle lobe).
        groundable: whether it has a place in the image that could be marked.
        ts_v2_key: class of TotalSegmentator's CT task, version 2.
        sat_name: class of the text-prompted segmenter SAT.
    """

    name: str
    category: Category
    synonyms: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()
    laterality: Laterality | None = None
    groundable: bool = True
    ts_v2_key: str | None = None
    sat_name: str | None = None

    @property
    def terms(self) -> tuple[str, ...]:
        """The name and its synonyms."""
        return (self.name, *self.synonyms)


class Taxonomy:
    """Targets by name or synonym, regardless of case and spacing.

    Args:
        targets: the entries; their order is kept.

    Raises:
        VividMedError: a term stands for two targets, a parent is unknown, parents form a circle, a counterpart of
            the other side is missing, or ``laterality`` disagrees with the name.
    """

    def __init__(self, targets: Iterable[Target]):
        self._targets = tuple(targets)
        self._by_name = {target.name: target for target in self._targets}
        self._by_term: dict[str, Target] = {}
        for target in self._targets:
            for term in target.terms:
                if (other := self._by_term.setdefault(_key(term), target)) is not target:
                    raise VividMedError(
                        f"taxonomy: {term!r} stands for {other.name!r} and {target.name!r}; keep it in one of them"
                    )
            if len({_key(term) for term in target.terms}) != len(target.terms):
                raise VividMedError(f"taxonomy: {target.name!r} lists a term twice; keep it once")
        for target in self._targets:
            self._check_laterality(target)
        self._ancestors = self._collect_ancestors()

    @classmethod
    def load(cls) -> "Taxonomy":
        """The taxonomy of the package, with the targets of the files that ``VIVIDMED_TAXONOMY`` names, if any.

        Raises:
            VividMedError: such a file cannot be read, or its entries are wrong or contradict the package's.
        """
        return _load(own_taxonomy_files())

    @classmethod
    def with_files(cls, entries: Iterable[Mapping[str, Any]], *paths: Path) -> Self:
        """Build from entries and those of files; see :mod:`vividmed.data.taxonomy_files`.

        Raises:
            VividMedError: a file cannot be read, or its entries are wrong or contradict the others.
        """
        merged = list(entries)
        for path in paths:
            own = read_taxonomy_file(path)
            try:
                merged = merged_entries(merged, own)
                taxonomy = cls.from_entries(merged)
            except VividMedError as error:
                raise VividMedError(f"{path}: {error}") from error
        return taxonomy if paths else cls.from_entries(merged)

    @classmethod
    def from_entries(cls, entries: Iterable[Mapping[str, Any]]) -> Self:
        """Build from dicts with the attributes of :class:`Target`; ``laterality`` is ``place`` for a sided name.

        Raises:
            VividMedError: an entry has an unknown or a missing field, or as for the constructor.
        """
        return cls(_target(entry, number) for number, entry in enumerate(entries))

    def __len__(self) -> int:
        return len(self._targets)

    def __iter__(self) -> Iterator[Target]:
        return iter(self._targets)

    def __contains__(self, term: object) -> bool:
        return isinstance(term, str) and _key(term) in self._by_term

    def __getitem__(self, term: str) -> Target:
        """The target that a name or a synonym stands for.

        Raises:
            VividMedError: there is none; the message names the closest ones.
        """
        target = self._by_term.get(_key(term)) if isinstance(term, str) else None
        if target is None:
            names = self.nearest(term) if isinstance(term, str) else []
            hint = (
                f"did you mean {' or '.join(map(repr, names))}?"
                if names
                else "see vividmed/data/taxonomy.json"
            )
            raise VividMedError(f"target {term!r} is not in the taxonomy; {hint}")
        return target

    def nearest(self, term: str) -> list[str]:
        """Names of up to three targets with a name or synonym like the term, the most similar first."""
        near = difflib.get_close_matches(_key(term), self._by_term, n=3, cutoff=0.6)
        return list(dict.fromkeys(self._by_term[match].name for match in near))

    def canonical(self, terms: Iterable[str]) -> list[str]:
        """Canonical names of terms, each once, in the order given.

        Raises:
            VividMedError: a term is unknown.
        """
        return list(dict.fromkeys(self[term].name for term in terms))

    def ancestors(self, term: str) -> frozenset[str]:
        """Names of everything that the target is a kind or a part of, without the target itself."""
        return self._ancestors[self[term].name]

    def descendants(self, term: str) -> frozenset[str]:
        """Names of all kinds and parts of the target, without the target itself."""
        name = self[term].name
        return frozenset(other for other, above in self._ancestors.items() if name in above)

    def absent(self, present: Iterable[str], searched: Iterable[str]) -> list[str]:
        """Targets that were searched for and are not there.

        Whatever a present target is a kind or a part of is not absent, even if the data set has no mask of it: a lung
        with a cancer has a tumor.

        Args:
            present: names or synonyms of what is there.
            searched: names or synonyms of everything that the annotators looked for in this image.

        Returns:
            Canonical names in the order of ``searched``.
        """
        there = set(self.canonical(present))
        there |= {above for name in there for above in self._ancestors[name]}
        return [name for name in self.canonical(searched) if name not in there]

    def sample_term(self, term: str, generator: np.random.Generator) -> str:
        """Draw the name or a synonym of a target, each with the same probability."""
        terms = self[term].terms
        return terms[int(generator.integers(len(terms)))]

    def mirror(self, term: str) -> str | None:
        """Canonical name of a target after the image has been flipped along the left-right axis.

        Returns:
            The counterpart on the other side; the same name if the target has no side or keeps it (``form``); None if
            no name would be right, so that the image must not be flipped, or the target must be left out.
        """
        target = self[term]
        if target.laterality == "place":
            return swap_sides(target.name)
        return None if target.laterality == "unpaired" else target.name

    def _check_laterality(self, target: Target) -> None:
        if has_side(target.name) != (target.laterality is not None):
            raise VividMedError(
                f"taxonomy: {target.name!r} has laterality {target.laterality!r}; names with left or right need one, "
                "others have none"
            )
        if target.laterality != "place":
            return
        counterpart = self._by_name.get(swap_sides(target.name))
        if counterpart is None or counterpart.laterality != "place":
            raise VividMedError(
                f"taxonomy: {target.name!r} lacks its counterpart {swap_sides(target.name)!r}; add it, or give "
                "laterality 'form' or 'unpaired'"
            )
        if counterpart.category != target.category:
            raise VividMedError(f"taxonomy: {target.name!r} and {counterpart.name!r} differ in category")

    def _collect_ancestors(self) -> dict[str, frozenset[str]]:
        found: dict[str, frozenset[str]] = {}

        def collect(name: str, path: tuple[str, ...]) -> frozenset[str]:
            if name in path:
                raise VividMedError(f"taxonomy: parents form a circle: {' -> '.join((*path, name))}")
            if name not in found:
                above: set[str] = set()
                for parent in self._by_name[name].parents:
                    if parent not in self._by_name:
                        raise VividMedError(
                            f"taxonomy: {name!r} has the unknown parent {parent!r}; add or correct it"
                        )
                    above |= {parent, *collect(parent, (*path, name))}
                found[name] = frozenset(above)
            return found[name]

        for name in self._by_name:
            collect(name, ())
        return found


def use_taxonomy(path: Path) -> None:
    """Add the targets of a file for this process and for those that it starts; a file that is in use already is not repeated.

    Raises:
        VividMedError: the file cannot be read, or its targets are wrong or contradict those in use.
    """
    used = own_taxonomy_files()
    resolved = path.absolute()
    if resolved in used:
        return
    content = read_taxonomy_file(resolved)
    if any(content == read_taxonomy_file(other) for other in used):
        return
    before = os.environ.get(TAXONOMY_VARIABLE)
    os.environ[TAXONOMY_VARIABLE] = os.pathsep.join(map(str, [*used, resolved]))
    try:
        Taxonomy.load()
    except VividMedError:
        os.environ.pop(TAXONOMY_VARIABLE)
        if before is not None:
            os.environ[TAXONOMY_VARIABLE] = before
        raise


def use_taxonomy_of(folder: str | Path) -> None:
    """Add the targets that a prepared data set or a model in a folder keeps, if there are any."""
    path = Path(folder) / TAXONOMY_FILE
    if path.is_file():
        use_taxonomy(path)


@cache
def _load(own: tuple[Path, ...]) -> Taxonomy:
    entries = json.loads(files("vividmed.data").joinpath("taxonomy.json").read_text(encoding="utf-8"))
    return Taxonomy.with_files(entries, *own)


def _key(term: str) -> str:
    return " ".join(term.casefold().split())


def _target(entry: Mapping[str, Any], number: int) -> Target:
    if not isinstance(entry, Mapping):
        raise VividMedError(f"taxonomy: entry {number} is {entry!r}; give an object with name and category")
    where = f"taxonomy: entry {entry.get('name', number)!r}"
    known = {field.name for field in fields(Target)}
    if unknown := set(entry) - known:
        raise VividMedError(
            f"{where} has the unknown field {sorted(unknown)[0]!r}; use {', '.join(sorted(known))}"
        )
    if missing := {"name", "category"} - set(entry):
        raise VividMedError(f"{where} lacks the field {sorted(missing)[0]!r}; add it")
    for key, value in entry.items():
        if not _has_right_type(key, value):
            raise VividMedError(
                f"{where}: field {key!r} is {value!r}; see vividmed/data/taxonomy.json for its form"
            )
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()
    }
    if has_side(values["name"]):
        values.setdefault("laterality", "place")
    if values["category"] not in _CATEGORIES:
        raise VividMedError(
            f"{where} has the category {values['category']!r}; use {' or '.join(_CATEGORIES)}"
        )
    if values.get("laterality") not in (None, *_LATERALITIES):
        raise VividMedError(
            f"{where} has the laterality {values['laterality']!r}; use {', '.join(_LATERALITIES)}"
        )
    return Target(**values)


def _has_right_type(key: str, value: Any) -> bool:
    if key in _LISTS:
        return isinstance(value, list | tuple) and all(map(_is_text, value))
    if key == "groundable":
        return isinstance(value, bool)
    return _is_text(value) or (value is None and key not in ("name", "category"))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
