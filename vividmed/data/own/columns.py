"""Finds out which column of a table contains what, by common names."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vividmed.errors import VividMedError

# The first names win. Compared without case, spaces, underscores and other signs.
SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "image": (
        "image", "images", "imagepath", "imagepaths", "imagefile", "imagefiles", "imagefilename", "imagename",
        "filename", "filenames", "filepath", "filepaths", "file", "files", "path", "paths", "img", "imgs", "imgpath",
        "imgfile", "imgname", "scan", "scans", "scanpath", "scanfile", "volume", "volumes", "volumepath",
        "volumename", "nifti", "niftipath", "niftifile", "dicom", "dicompath", "dicomfile", "dicomfolder", "dicomdir",
        "series", "seriespath", "seriesfolder", "picture", "pictures", "radiograph", "xray", "cxr", "ct", "mri",
        "imageid", "imageids",
    ),
    "question": ("question", "questions", "query", "queries", "prompt", "prompts", "instruction", "q", "questiontext"),
    "answer": (
        "answer", "answers", "response", "responses", "reply", "a", "answertext", "groundtruth", "groundtruthanswer",
        "gt", "output", "completion", "target",
    ),
    "report": (
        "report", "reports", "reporttext", "radiologyreport", "fullreport", "fullreporttext", "reportbody",
        "freetextreport", "narrative",
    ),
    "findings": ("findings", "finding", "findingssection", "findingstext"),
    "impression": ("impression", "impressions", "impressionsection", "conclusion", "conclusions"),
    "caption": ("caption", "captions", "text", "description", "imagecaption"),
    "patient": (
        "patient", "patientid", "patientids", "patientkey", "patientno", "patientnumber", "patientcode",
        "patientpseudonym", "pseudonym", "subject", "subjectid", "subjectkey", "participant", "participantid", "person",
        "personid", "pid", "ptid", "mrn",
    ),
    "split": ("split", "splits", "datasplit", "datasetsplit", "set", "subset", "partition", "phase"),
    "modality": ("modality", "imagemodality", "imagingmodality", "modalityname"),
    "plane": ("plane", "view", "viewposition", "projection", "imageplane", "imageview"),
    "id": ("id", "rowid", "caseid", "qid", "questionid", "sampleid", "exampleid", "itemid"),
}  # fmt: skip
LISTS = ("image", "question", "answer")
"""What may be spread over several columns, such as ``image_1`` and ``image_2``."""

GIVEN = ("image", "question", "answer", "report", "patient", "split", "id")
"""What an argument of the command line, such as ``--image-column``, may name."""

_NOT_USED = "none"
_NUMBERED = re.compile(r"(.*?[a-z])(\d+)")
_SHOWN = 20


@dataclass(frozen=True)
class Columns:
    """The columns of a table by what they contain.

    Attributes:
        lists: columns of images, questions and answers, in order.
        single: the column of anything else.
        unused: columns that are not used.
        rivals: columns that look like another one that is used.
    """

    lists: Mapping[str, tuple[str, ...]]
    single: Mapping[str, str]
    unused: tuple[str, ...] = ()
    rivals: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, role: str) -> tuple[str, ...]:
        """Columns of a role; empty if there is none."""
        return self.lists.get(role, ()) if role in LISTS else tuple(filter(None, [self.single.get(role)]))

    @property
    def used(self) -> list[str]:
        """Names of all columns that are used."""
        return [*(name for names in self.lists.values() for name in names), *self.single.values()]

    @property
    def first_image(self) -> str:
        return self.lists["image"][0]


def find_columns(header: Sequence[str], given: Mapping[str, Sequence[str]], where: str) -> Columns:
    """Find the columns that a data set of images and texts needs.

    Args:
        header: names of the columns.
        given: role to the names that the user gives; ``none`` leaves a role out.
        where: how errors name the table.

    Raises:
        VividMedError: there is no column of images or of texts, a given name does not exist, or a name that decides on
            something occurs twice.
    """
    lists: dict[str, tuple[str, ...]] = {}
    single: dict[str, str] = {}
    rivals: dict[str, str] = {}
    for role in SYNONYMS:
        if role in given:
            names = _given(header, role, given[role], where)
        else:
            names, others = _guessed(header, role)
            rivals |= dict.fromkeys(others, role)
        if role in LISTS:
            lists[role] = tuple(names)
        elif len(names) > 1:
            raise VividMedError(
                f"{where}: the columns {' and '.join(map(repr, names))} both look like the {role} column; rename or "
                "remove one of them"
            )
        elif names:
            single[role] = names[0]
    used = {*single.values(), *(name for names in lists.values() for name in names)}
    columns = Columns(
        lists,
        single,
        tuple(n for n in header if n not in used),
        {n: r for n, r in rivals.items() if n not in used},
    )
    _check(columns, header, where)
    return columns


def is_header(names: Sequence[str], given: Mapping[str, Sequence[str]]) -> bool:
    """Whether a row of a table names a column of images and a column of texts."""
    wanted = {normalised(name) for columns in given.values() for name in columns}
    found = {normalised(name) for name in names if len(name) < 100}
    texts = ("question", "answer", "report", "findings", "impression", "caption")
    return bool(found & wanted) or (
        bool(_guessed(names, "image")[0]) and any(_guessed(names, role)[0] for role in texts)
    )


def normalised(name: str) -> str:
    """Name of a column without case, signs, and remarks such as ``(free text)``."""
    return re.sub(r"[\W_]+", "", re.sub(r"[(\[][^)\]\d]+[)\]]", "", name.casefold()))


def _guessed(header: Sequence[str], role: str) -> tuple[list[str], list[str]]:
    """Columns of a role under its best name, and further columns that could be meant."""
    ranked: dict[int, list[tuple[int, int, str]]] = {}
    known = SYNONYMS[role]
    for place, name in enumerate(header):
        plain, number = normalised(name), 0
        match = _NUMBERED.fullmatch(plain)
        if plain not in known and role in LISTS and match is not None and match[1] in known:
            plain, number = match[1], int(match[2])
        if plain in known:
            ranked.setdefault(known.index(plain), []).append((number, place, name))
    if not ranked:
        return [], []
    best = min(ranked)
    # ``image`` and ``images_2`` are columns of one kind.
    same = {rank for rank in ranked if known[rank].rstrip("s") == known[best].rstrip("s")}
    chosen = [name for _, _, name in sorted(entry for rank in same for entry in ranked[rank])]
    return chosen, [name for rank, entries in ranked.items() if rank not in same for _, _, name in entries]


def _given(header: Sequence[str], role: str, names: Sequence[str], where: str) -> list[str]:
    found = []
    for name in names:
        exact = [column for column in header if column == name]
        matches = exact or [column for column in header if normalised(column) == normalised(name)]
        if not matches and normalised(name) == _NOT_USED and len(names) == 1:
            return []
        if len(matches) != 1:
            near = difflib.get_close_matches(name, header, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the table has {_listed(header)}"
            what = "there is no such column" if not matches else f"{len(matches)} columns have this name"
            raise VividMedError(f"{where}: --{role}-column {name!r}: {what}; {hint}")
        found += matches
    return found


def _check(columns: Columns, header: Sequence[str], where: str) -> None:
    has = f"the table has {_listed(header)}"
    if not columns["image"]:
        raise VividMedError(f"{where}: no column of images is found; name it by --image-column; {has}")
    if bool(columns["question"]) != bool(columns["answer"]) and not _other_text(columns):
        missing, present = ("answer", "question") if columns["question"] else ("question", "answer")
        raise VividMedError(
            f"{where}: there is a column of {present}s ({columns[present][0]!r}) but none of {missing}s; name it by "
            f"--{missing}-column; {has}"
        )
    numbers = {role: len(columns[role]) for role in ("question", "answer")}
    if all(numbers.values()) and numbers["question"] != numbers["answer"]:
        raise VividMedError(
            f"{where}: there are columns of questions ({numbers['question']}) and of answers ({numbers['answer']}); name "
            f"them in pairs by --question-column and --answer-column; {has}"
        )
    if not columns["question"] and not _other_text(columns):
        raise VividMedError(
            f"{where}: no column of questions and answers, or of reports, is found; name it by --question-column and "
            f"--answer-column, or by --report-column; {has}"
        )


def _other_text(columns: Columns) -> bool:
    return any(columns[role] for role in ("report", "findings", "impression", "caption"))


def _listed(header: Sequence[str]) -> str:
    shown = ", ".join(repr(name[:60]) for name in header[:_SHOWN])
    more = f" and {len(header) - _SHOWN} more" if len(header) > _SHOWN else ""
    return f"{shown}{more}" if header else "no column"
