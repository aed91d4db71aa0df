"""Reports of segmented cases: read from a table or a folder, with phrases marked that name what is segmented."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vividmed.data.own.cells import key_text, paragraphs
from vividmed.data.own.columns import SYNONYMS, normalised
from vividmed.data.own.listing import RefusedRow
from vividmed.data.own.table_content import UnreadableCell
from vividmed.data.own.tabular import SUFFIXES, is_table, read_tabular
from vividmed.data.pseudo_labels.tagging import Tagger
from vividmed.data.raw.case import Split
from vividmed.data.raw.documents import read_text
from vividmed.data.raw.report_text import clean_text
from vividmed.data.raw.splits import official_split
from vividmed.data.taxonomy import Taxonomy
from vividmed.errors import VividMedError

_CASE = (
    "case",
    "caseid",
    "casename",
    "caseidentifier",
    "identifier",
    "id",
    "name",
    "scanid",
    "studyid",
    "study",
)
_TEXTS = ("report", "findings", "impression")


@dataclass(frozen=True, kw_only=True)
class CaseReport:
    """What the table of reports says about a case: its report, its patient and its split, each empty if not stated."""

    text: str = ""
    patient: str = ""
    split: Split | None = None


@dataclass(frozen=True, kw_only=True)
class Reports:
    """Reports by case.

    Attributes:
        by_case: case to what is said about it.
        refused: rows of the table, or files of the folder, that cannot be read or belong to no case.
        has_patients: whether the table names patients.
    """

    by_case: Mapping[str, CaseReport]
    refused: tuple[RefusedRow, ...] = ()
    has_patients: bool = False


def find_reports(folder: Path) -> Path | None:
    """The table ``reports.*`` or the folder ``reports`` of a data set; None if there is neither."""
    for name in [f"reports{suffix}" for suffix in SUFFIXES]:
        if (folder / name).is_file():
            return folder / name
    return folder / "reports" if (folder / "reports").is_dir() else None


def read_reports(path: Path, cases: Collection[str]) -> Reports:
    """Read the reports of cases.

    Args:
        path: table with a column that names the case, by its id or by a file of it, and a column of reports (or of
            findings and impressions), and optionally of patients and splits; or a folder with ``<case>.txt`` files.
        cases: ids of the cases.

    Raises:
        VividMedError: the table lacks a column, or no report belongs to a case.
    """
    if path.is_dir():
        reports = _from_folder(path, cases)
    elif is_table(path):
        reports = _from_table(path, cases)
    else:
        raise VividMedError(f"{path}: give a table of reports, or a folder with one text file per case")
    if not reports.by_case:
        example = next(iter(sorted(cases)), "")
        first = f" (the first that cannot be used: {reports.refused[0]})" if reports.refused else ""
        raise VividMedError(
            f"{path}: no report belongs to a case{first}; name cases as their files do, such as {example!r}"
        )
    return reports


def mark_phrases(text: str, targets: Iterable[str]) -> tuple[str, tuple[tuple[str, ...], ...]]:
    """Mark the phrases of a report that name segmented targets which it says are there.

    A phrase that names something whose parts or kinds are segmented (``kidneys``) shows all of these.

    Args:
        text: of the report.
        targets: names or synonyms of what was segmented.

    Returns:
        The text with ``<p>phrase</p>``, and the targets of each phrase in order.
    """
    taxonomy = Taxonomy.load()
    segmented = set(taxonomy.canonical(target for target in targets if target in taxonomy))
    pieces: list[str] = []
    phrases: list[tuple[str, ...]] = []
    end = 0
    for mention in sorted(Tagger(taxonomy)(text), key=lambda mention: mention.start):
        shown = {mention.target} & segmented or taxonomy.descendants(mention.target) & segmented
        if mention.status != "present" or not shown or mention.start < end:
            continue
        pieces += [text[end : mention.start], f"<p>{text[mention.start : mention.end]}</p>"]
        phrases.append(tuple(sorted(shown)))
        end = mention.end
    return "".join([*pieces, text[end:]]), tuple(phrases)


def _from_folder(folder: Path, cases: Collection[str]) -> Reports:
    by_case: dict[str, CaseReport] = {}
    refused = []
    for file in sorted(folder.glob("*.txt")):
        if file.name.startswith("."):
            continue
        case = _case_of(file.stem, cases)
        try:
            if case is None:
                raise VividMedError("belongs to no case of the data set; name it as the case")
            if case in by_case:
                raise VividMedError(f"is a second report of {case!r}; keep one")
            by_case[case] = CaseReport(text=_text(read_text(file)))
        except VividMedError as error:
            refused.append(RefusedRow(0, "", str(error).removeprefix(f"{file}: "), file.name))
    return Reports(by_case=by_case, refused=tuple(refused))


def _from_table(path: Path, cases: Collection[str]) -> Reports:
    def roles(names: Iterable[str]) -> dict[str, str]:
        known = {"case": (*_CASE, *SYNONYMS["image"])} | {
            r: SYNONYMS[r] for r in (*_TEXTS, "patient", "split")
        }
        found: dict[str, tuple[int, str]] = {}
        for name in names:
            for role, words in known.items():
                if (plain := normalised(name)) in words:
                    found[role] = min(found.get(role, (len(words), "")), (words.index(plain), name))
        return {role: name for role, (_, name) in found.items()}

    def has_texts(columns: Mapping[str, str]) -> bool:
        return "case" in columns and bool(set(_TEXTS) & set(columns))

    table = read_tabular(path, lambda names: has_texts(roles(names)))
    columns = roles(table.columns)
    if not has_texts(columns):
        listed = ", ".join(map(repr, table.columns[:20]))
        raise VividMedError(
            f"{path}: needs a column 'case' and a column 'report' (or 'findings'); it has {listed}"
        )
    by_case: dict[str, CaseReport] = {}
    refused = list(table.refused)
    for record in table.records:
        cells = {role: record.cells.get(name) for role, name in columns.items()}
        named = key_text(cells["case"])
        case = _case_of(named, cases)
        if unreadable := next(((r, c) for r, c in cells.items() if isinstance(c, UnreadableCell)), None):
            refused.append(RefusedRow(record.number, columns[unreadable[0]], unreadable[1].reason))
            continue
        split_text = key_text(cells.get("split"))
        problem = ""
        if case is None:
            problem = f"{named!r} is not a case of the data set" if named else "is empty; name the case"
        elif case in by_case:
            problem = f"{named!r} has a report in an earlier row too; keep one"
        if case is None or problem:
            refused.append(RefusedRow(record.number, columns["case"], problem))
            continue
        if split_text and official_split(split_text) is None:
            reason = f"contains {split_text!r}; write train, validation or test"
            refused.append(RefusedRow(record.number, columns["split"], reason))
            continue
        by_case[case] = CaseReport(
            text=_joined(cells), patient=key_text(cells.get("patient")), split=official_split(split_text)
        )
    return Reports(by_case=by_case, refused=tuple(refused), has_patients="patient" in columns)


def _joined(cells: Mapping[str, object]) -> str:
    texts = {role: _text(paragraphs(cells.get(role))) for role in _TEXTS}
    if texts["report"]:
        return texts["report"]
    return "\n".join(
        f"{role.capitalize()}: {texts[role]}" for role in ("findings", "impression") if texts[role]
    )


def _text(text: str) -> str:
    """A report without markers of phrases, which are set anew; empty if it only says that nothing was given."""
    plain = paragraphs(text.replace("<p>", "").replace("</p>", ""))
    return plain if clean_text(plain) else ""


def _case_of(named: str, cases: Collection[str]) -> str | None:
    """The case that a table means by its id or by the name of its image or label."""
    name = named.replace("\\", "/").rpartition("/")[2]
    for ending in ("", ".nii.gz", ".nii", ".png", ".tif", ".mha", ".nrrd"):
        plain = name.removesuffix(ending)
        for candidate in (plain, plain[:-5] if plain[-5:-4] == "_" and plain[-4:].isdigit() else plain):
            if candidate in cases:
                return candidate
    return None
