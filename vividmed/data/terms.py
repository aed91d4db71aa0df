"""The terms under which a data set may be used and shared, which everything made from it inherits.

A prepared data set carries its terms in ``terms.json``; a trained model carries those of all its training data in
``provenance.json``. :mod:`vividmed.hub.publish` reads both before anything leaves the machine.

Terms belong to rows: every row names its ``source`` and its ``licence``, and :func:`terms_of_rows` compares them with
what is stated about that source. Terms that are unknown or contradict each other are a record of their own
(:meth:`DatasetTerms.unknown`), which keeps whatever is made from the rows private.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, get_args

from vividmed.errors import VividMedError
from vividmed.files import write_atomically

Access = Literal["open", "registered", "credentialed", "internal", "unknown"]
Redistribution = Literal["yes", "no", "derived_gated"]
Visibility = Literal["private", "gated", "public"]
VISIBILITIES: tuple[Visibility, ...] = get_args(Visibility)
"""Audiences, the smallest first."""

TERMS_FILE = "terms.json"
PROVENANCE_FILE = "provenance.json"


class Terms(Protocol):
    """Anything that states the terms of a data set, such as an adapter; see :class:`DatasetTerms`."""

    @property
    def name(self) -> str: ...
    @property
    def licence(self) -> str: ...
    @property
    def access(self) -> str: ...
    @property
    def redistribute(self) -> str: ...
    @property
    def homepage(self) -> str: ...
    @property
    def citation(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class DatasetTerms:
    """Terms of one data set.

    Attributes:
        name: short name of the data set.
        licence: licence as the owners name it, such as "CC BY 4.0".
        access: ``open`` to everyone; ``registered`` (an account or a form); ``credentialed`` (each reader completes a
            training and signs an agreement); ``internal`` (one's own private data, of which nothing is published); or
            ``unknown``, see :meth:`unknown`.
        redistribute: whether derived data may be shared: ``yes``; ``no``; or ``derived_gated``, only where a person
            approves each reader under the same terms.
        homepage: where the data set is obtained; may be empty for internal data.
        citation: how to cite it, as plain text or BibTeX; may be empty for internal data.
        terms: one sentence on the access terms, shown where sharing is refused; may be empty.
        source: what the ``source`` column of its rows contains; empty if that is ``name``.

    Raises:
        VividMedError: a field is empty or has an unknown value, or data that is credentialed, internal or of unknown
            terms claims to be shareable.
    """

    name: str
    licence: str
    access: Access
    redistribute: Redistribution
    homepage: str
    citation: str
    terms: str = ""
    source: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        where = f"terms of {self.name or '(no name)'}"
        for column in fields(self):
            value = getattr(self, column.name)
            optional = column.default is not MISSING or (
                self.access == "internal" and column.name in ("homepage", "citation")
            )
            if not isinstance(value, str) or (not value.strip() and not optional):
                raise VividMedError(f"{where}: field {column.name!r} is {value!r}; give a text")
        for name, known in (("access", get_args(Access)), ("redistribute", get_args(Redistribution))):
            if getattr(self, name) not in known:
                raise VividMedError(
                    f"{where}: field {name!r} is {getattr(self, name)!r}; use one of {', '.join(known)}"
                )
        if self.access in ("credentialed", "internal", "unknown") and self.redistribute == "yes":
            raise VividMedError(
                f"{where}: field 'redistribute' is 'yes' although access is {self.access}; "
                "use 'no' or 'derived_gated'"
            )

    @classmethod
    def of(cls, terms: Terms) -> "DatasetTerms":
        """Copy and check the terms of an adapter or a record."""
        stated = {
            column.name: getattr(terms, column.name) for column in fields(cls) if column.default is MISSING
        }
        source = getattr(terms, "source", "") or getattr(terms, "title", "")
        return cls(**stated, terms=getattr(terms, "terms", ""), source=source)

    @classmethod
    def unknown(cls, name: str, reason: str) -> "DatasetTerms":
        """Terms of data about which nothing is known for certain; they allow private use only.

        Args:
            name: name of the data set, as far as it is known.
            reason: why the terms are unknown, shown where sharing is refused.
        """
        return cls(
            name=name,
            licence="unknown",
            access="unknown",
            redistribute="no",
            homepage="unknown",
            citation="unknown",
            terms=reason,
        )

    @property
    def data_visibility(self) -> Visibility:
        """The widest audience that prepared data may have.

        Credentialed data is private whatever else is said: a gate cannot check that a reader signed the agreement.
        Internal data is private by its nature.
        """
        if self.redistribute == "yes":
            return "public"
        closed = self.access in ("credentialed", "internal")
        return "gated" if self.redistribute == "derived_gated" and not closed else "private"

    @property
    def model_visibility(self) -> Visibility:
        """The widest audience that a model trained on the data may have."""
        if self.access in ("internal", "unknown"):
            return "private"
        return "public" if self.redistribute == "yes" else "gated"

    def __str__(self) -> str:
        text = f"{self.name}: licence {self.licence}, access {self.access}, redistribute {self.redistribute}"
        return f"{text}, {self.terms!r}" if self.terms else text


class RowSource(NamedTuple):
    """Origin of a row: its ``source`` and ``licence`` columns."""

    source: str | None
    licence: str | None


def row_sources(rows: Any) -> set[RowSource]:
    """Distinct sources of rows, without reading an image.

    Args:
        rows: a ``datasets.Dataset``, or an iterable of rows with ``source`` and ``licence``.
    """
    if not hasattr(rows, "select_columns"):
        return {RowSource(row["source"], row["licence"]) for row in rows}
    found: set[RowSource] = set()
    for columns in rows.select_columns(["source", "licence"]).with_format("arrow").iter(batch_size=10_000):
        pairs = zip(columns["source"].to_pylist(), columns["licence"].to_pylist(), strict=True)
        found |= {RowSource(*pair) for pair in pairs}
    return found


def terms_of_rows(
    sources: Iterable[RowSource], *, stated: Iterable[Terms] = (), known: Iterable[Terms] = ()
) -> list[DatasetTerms]:
    """Terms of all data sets that rows come from.

    A source is matched by ``source``, by ``name``, or by either followed by ``": "`` and the part of the data set
    that was used. The licence of its rows, the terms stated with the data and the terms known to the package must
    agree; where they do not, or where there are no terms at all, the terms of that source are unknown.

    Args:
        sources: see :func:`row_sources`.
        stated: terms that came with the data, such as those of its ``terms.json``. They count even if no row
            names them as its source.
        known: terms known independently of the data, see :func:`vividmed.data.known_terms.known_terms`.

    Returns:
        One record per data set, sorted by name; see :func:`combine_terms`.
    """
    stated_terms = [DatasetTerms.of(terms) for terms in stated]
    candidates: dict[str, list[DatasetTerms]] = {}
    for terms in (*map(DatasetTerms.of, known), *stated_terms):
        for name in {_key(terms.name), _key(terms.source or terms.name)}:
            candidates.setdefault(name, []).append(terms)
    found = []
    for source, licence in sources:
        whole, part = _key(source or ""), _key((source or "").partition(": ")[0])
        found.append(_agreed(source, licence, candidates.get(whole) or candidates.get(part, [])))
    return combine_terms([*found, *stated_terms])


def combine_terms(terms: Iterable[Terms]) -> list[DatasetTerms]:
    """Terms of everything that data or a model is made from, one record per data set, sorted by name.

    Records of the same name that contradict each other become one record of unknown terms.
    """
    by_name: dict[str, DatasetTerms] = {}
    for each in map(DatasetTerms.of, terms):
        other = by_name.setdefault(each.name, each)
        if _substance(other) != _substance(each):
            unknown = next((t for t in (other, each) if t.access == "unknown"), None)
            reason = f"its terms are stated differently: {other}, and {each}"
            by_name[each.name] = unknown or DatasetTerms.unknown(each.name, reason)
    return [by_name[name] for name in sorted(by_name)]


def widest_visibility(terms: Iterable[DatasetTerms], of: Literal["data", "model"]) -> Visibility:
    """The widest audience that all terms allow; private if there are none."""
    allowed = [each.data_visibility if of == "data" else each.model_visibility for each in terms]
    return min(allowed, key=VISIBILITIES.index, default="private")


def write_terms(folder: Path, terms: Terms | Iterable[Terms]) -> None:
    """Write ``terms.json`` of a prepared data set; of one made from several, the terms of each of them."""
    if isinstance(terms, Iterable):
        records = [asdict(each) for each in combine_terms(terms)]
        content: Any = records[0] if len(records) == 1 else {"datasets": records}
    else:
        content = asdict(DatasetTerms.of(terms))
    write_atomically(folder / TERMS_FILE, _json(content))


def read_terms(folder: Path) -> DatasetTerms:
    """Read ``terms.json`` of a prepared data set.

    Raises:
        VividMedError: the file is missing, malformed, or states the terms of several data sets.
    """
    terms = read_all_terms(folder)
    if len(terms) != 1:
        names = ", ".join(each.name for each in terms)
        raise VividMedError(
            f"{folder / TERMS_FILE}: states the terms of several data sets ({names}); expected one"
        )
    return terms[0]


def read_all_terms(folder: Path) -> list[DatasetTerms]:
    """Read ``terms.json`` of a prepared data set that may be made from several others.

    Raises:
        VividMedError: the file is missing or malformed.
    """
    path = folder / TERMS_FILE
    content = _read(path)
    if isinstance(content, Mapping) and "datasets" in content:
        return _records(content, path)
    return [_from_record(content, path)]


def write_provenance(folder: Path, training_data: Iterable[Terms]) -> None:
    """Write ``provenance.json`` of a model: the terms of every data set it was trained on, base model included."""
    records = [asdict(terms) for terms in combine_terms(training_data)]
    write_atomically(folder / PROVENANCE_FILE, _json({"datasets": records}))


def read_provenance(folder: Path) -> list[DatasetTerms]:
    """Read ``provenance.json`` of a model.

    Raises:
        VividMedError: the file is missing or malformed, or names no data set.
    """
    path = folder / PROVENANCE_FILE
    return _records(_read(path), path)


def _agreed(source: str | None, licence: str | None, candidates: list[DatasetTerms]) -> DatasetTerms:
    """The terms of one source if everything that states them agrees, else unknown terms that say what does not."""
    name = candidates[0].name if candidates else source or "rows without a source"
    if not candidates:
        return DatasetTerms.unknown(name, "no terms are stated for this source")
    if disagreeing := [each for each in candidates if _substance(each) != _substance(candidates[0])]:
        reason = f"its terms are stated differently: {candidates[0]}, and {disagreeing[0]}"
        return DatasetTerms.unknown(name, reason)
    if _key(licence or "") != _key(candidates[0].licence):
        reason = f"its rows give the licence {licence!r}, its terms {candidates[0].licence!r}"
        return DatasetTerms.unknown(name, reason)
    return candidates[0]


def _substance(terms: DatasetTerms) -> tuple[str, str, str]:
    """Fields that decide on the audience; the wording of a citation may differ."""
    return _key(terms.licence), terms.access, terms.redistribute


def _key(text: str) -> str:
    return " ".join(re.findall(r"\w+|\+", text.casefold()))


def _records(content: Any, path: Path) -> list[DatasetTerms]:
    records = content.get("datasets") if isinstance(content, Mapping) else None
    if not isinstance(records, list) or not records:
        raise VividMedError(
            f"{path}: field 'datasets' names no data set; list the terms of all data sets it was made from"
        )
    return [_from_record(record, path) for record in records]


def _from_record(record: Any, path: Path) -> DatasetTerms:
    names = [column.name for column in fields(DatasetTerms) if column.name != "source"]
    if not isinstance(record, Mapping) or set(record) - {"source"} != set(names):
        raise VividMedError(
            f"{path}: the terms of a data set need exactly the fields {', '.join(names)}, and may have source"
        )
    try:
        return DatasetTerms(**record)
    except VividMedError as error:
        raise VividMedError(f"{path}: {error}") from error


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise VividMedError(f"{path}: is missing; write the terms of the data there") from None
    except (OSError, ValueError) as error:
        raise VividMedError(f"{path}: cannot be read as JSON ({error}); write it again") from error


def _json(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
