"""The terms under which a data set may be used and shared, kept with everything that is made from it.

A prepared data set carries them in ``terms.json``, a trained model those of all its training data in
``provenance.json``; :mod:`vividmed.hub.publish` reads both before anything leaves the machine.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from vividmed.errors import VividMedError
from vividmed.files import write_atomically

Access = Literal["open", "registered", "credentialed"]
Redistribution = Literal["yes", "no", "derived_gated"]
Visibility = Literal["private", "gated", "public"]

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
        name: of the data set.
        licence: as its owners name it, e.g. "CC BY 4.0".
        access: ``open`` to everyone, ``registered`` (an account or a form), or ``credentialed`` (each reader proves
            a training and signs an agreement).
        redistribute: whether what is made from the data may be shared: ``yes``; ``no``; or ``derived_gated``: only
            behind access that a person grants under the same terms.
        homepage: where the data set is obtained.
        citation: how to cite it, plain text or BibTeX.
        terms: one sentence on the access terms, shown where sharing is refused; may be empty.

    Raises:
        VividMedError: if a field is empty or has an unknown value, or credentialed data claims to be shareable.
    """

    name: str
    licence: str
    access: Access
    redistribute: Redistribution
    homepage: str
    citation: str
    terms: str = ""

    def __post_init__(self) -> None:
        where = f"terms of {self.name or '(no name)'}"
        for column in fields(self):
            value = getattr(self, column.name)
            if not isinstance(value, str) or (not value.strip() and column.default is MISSING):
                raise VividMedError(f"{where}: field {column.name!r} is {value!r}; give a text")
        for name, known in (("access", get_args(Access)), ("redistribute", get_args(Redistribution))):
            if getattr(self, name) not in known:
                raise VividMedError(
                    f"{where}: field {name!r} is {getattr(self, name)!r}; use one of {', '.join(known)}"
                )
        if self.access == "credentialed" and self.redistribute == "yes":
            raise VividMedError(
                f"{where}: field 'redistribute' is 'yes' although access is credentialed; "
                "use 'no' or 'derived_gated'"
            )

    @classmethod
    def of(cls, terms: Terms) -> "DatasetTerms":
        """Checked copy of the terms of an adapter or a record."""
        stated = {
            column.name: getattr(terms, column.name) for column in fields(cls) if column.default is MISSING
        }
        return cls(**stated, terms=getattr(terms, "terms", ""))

    @property
    def data_visibility(self) -> Visibility:
        """The widest audience that prepared data may have.

        Credentialed data is private whatever else is said: a gate cannot check that a reader signed the agreement.
        """
        if self.redistribute == "yes":
            return "public"
        return (
            "gated" if self.redistribute == "derived_gated" and self.access != "credentialed" else "private"
        )

    @property
    def model_visibility(self) -> Visibility:
        """The widest audience that a model trained on the data may have."""
        return "public" if self.redistribute == "yes" else "gated"

    def __str__(self) -> str:
        text = f"{self.name}: licence {self.licence}, access {self.access}, redistribute {self.redistribute}"
        return f"{text}, {self.terms!r}" if self.terms else text


def write_terms(folder: Path, terms: Terms) -> None:
    """Write ``terms.json`` of a prepared data set."""
    write_atomically(folder / TERMS_FILE, _json(asdict(DatasetTerms.of(terms))))


def read_terms(folder: Path) -> DatasetTerms:
    """Read ``terms.json`` of a prepared data set.

    Raises:
        VividMedError: if the file is missing or wrong.
    """
    path = folder / TERMS_FILE
    return _from_record(_read(path), path)


def write_provenance(folder: Path, training_data: Iterable[Terms]) -> None:
    """Write ``provenance.json`` of a model: the terms of every data set it was trained on, base model included."""
    records = {terms.name: asdict(DatasetTerms.of(terms)) for terms in training_data}
    write_atomically(
        folder / PROVENANCE_FILE, _json({"datasets": [records[name] for name in sorted(records)]})
    )


def read_provenance(folder: Path) -> list[DatasetTerms]:
    """Read ``provenance.json`` of a model.

    Raises:
        VividMedError: if the file is missing or wrong, or names no data set.
    """
    path = folder / PROVENANCE_FILE
    content = _read(path)
    records = content.get("datasets") if isinstance(content, Mapping) else None
    if not isinstance(records, list) or not records:
        raise VividMedError(
            f"{path}: field 'datasets' names no data set; list the terms of all training data"
        )
    return [_from_record(record, path) for record in records]


def _from_record(record: Any, path: Path) -> DatasetTerms:
    names = [column.name for column in fields(DatasetTerms)]
    if not isinstance(record, Mapping) or set(record) != set(names):
        raise VividMedError(f"{path}: the terms of a data set need exactly the fields {', '.join(names)}")
    try:
        return DatasetTerms(**record)
    except VividMedError as error:
        raise VividMedError(f"{path}: {error}") from error


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise VividMedError(f"{path} is missing; write down the terms of the data there") from None
    except (OSError, ValueError) as error:
        raise VividMedError(f"{path} cannot be read as JSON ({error}); write it again") from error


def _json(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
