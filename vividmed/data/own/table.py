"""Cases of a table that names images and what is asked or said about them."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from vividmed.data.own.cells import cell_paths, key_text
from vividmed.data.own.columns import SYNONYMS, Columns, find_columns, normalised
from vividmed.data.own.image_paths import ImageFolder, stem
from vividmed.data.own.json_records import CHAT_ANSWERS, CHAT_IMAGES, CHAT_QUESTIONS
from vividmed.data.own.listing import OwnListing, RefusedRow
from vividmed.data.own.table_content import SPLIT_COLUMN, TableContent
from vividmed.data.own.table_rows import Entry, RowReader, RowRefusedError, TableOptions, is_header_for
from vividmed.data.own.tabular import read_tabular
from vividmed.data.raw.case import SPLITS, Case, ImageFile, Split
from vividmed.errors import VividMedError

_PREVIEWED = 3
_PREVIEW_CHARACTERS = 100


def read_table_listing(
    path: Path, images: Path | None = None, options: TableOptions | None = None
) -> OwnListing:
    """Read a table of images with questions and answers, reports or captions.

    Rows about the same images become one case with several turns, so that a volume is stored once.

    Args:
        path: table, see :func:`~vividmed.data.own.tabular.read_tabular`.
        images: folder that the names of images are relative to; that of the table by default.
        options: what is not to be guessed.

    Raises:
        VividMedError: the table cannot be read, lacks a column, or has no row that can be used.
    """
    options = options or TableOptions()
    folder = images if images is not None else path.absolute().parent
    if not folder.is_dir():
        raise VividMedError(f"--images {folder}: no such folder; give the folder that contains the images")
    table = read_tabular(
        path,
        is_header_for(options),
        encoding=options.encoding,
        delimiter=options.delimiter,
        sheet=options.sheet,
    )
    return listing_of_table(path, table, ImageFolder(folder), options)


def listing_of_table(
    path: Path, table: TableContent, folder: ImageFolder, options: TableOptions
) -> OwnListing:
    """Turn the rows of a table into cases; arguments as for :func:`read_table_listing`.

    Raises:
        VividMedError: the table lacks a column, or has no row that can be used.
    """
    columns = _columns(path, table, folder, options)
    reader = RowReader(columns, folder, options, where=str(path), table=table)
    columns = reader.columns  # without those that are empty
    entries: list[Entry] = []
    refused = list(table.refused)
    for record in table.records:
        try:
            entries.append(reader.read(record))
        except RowRefusedError as error:
            refused.append(RefusedRow(record.number, error.column, error.reason, record.file))
    notes = [*table.notes, *reader.notes]
    entries, conflicts = _one_split_per_patient(entries)
    notes += conflicts
    cases, table_rows, repeated = _cases(entries, columns, options, notes)
    refused += repeated
    refused.sort(key=lambda row: (row.file, row.row))
    if not cases:
        raise VividMedError(
            f"{path}: none of its {len(table.records) + len(table.refused)} rows can be used; the first one: {refused[0]}"
        )
    return OwnListing(
        row_kind="vision_language",
        origin=folder.folder.absolute(),
        cases=tuple(cases),
        modalities=tuple(dict.fromkeys(i.modality for case in cases for i in case.images if i.modality)),
        has_splits=bool(columns["split"]),
        has_patients=bool(columns["patient"]),
        refused=tuple(refused),
        table_rows=table_rows,
        image_column=columns.first_image,
        notes=tuple(notes),
        overview=tuple(_overview(path, table, columns, cases)),
        preview=tuple(line for entry in entries[:_PREVIEWED] for line in _previewed(entry, folder.folder)),
    )


def _columns(path: Path, table: TableContent, folder: ImageFolder, options: TableOptions) -> Columns:
    given = dict(options.columns)
    if SPLIT_COLUMN in table.columns:
        given.setdefault("split", (SPLIT_COLUMN,))
    if CHAT_QUESTIONS in table.columns and not {"question", "answer"} & given.keys():
        given |= {"question": (CHAT_QUESTIONS,), "answer": (CHAT_ANSWERS,)}
    if not table.records and table.refused:
        raise VividMedError(
            f"{path}: none of its {len(table.refused)} rows can be used; the first one: {table.refused[0]}"
        )
    try:
        columns = find_columns(table.columns, _with_chat_images(table, given), str(path))
    except VividMedError as error:
        if any(folder.exists(name) for name in table.columns):
            raise VividMedError(
                f"{path}: its first row is data, not the names of columns; add a header such as image,question,answer"
            ) from error
        raise
    if "image" in given or not table.records:
        return columns
    # Several columns look like names of images: the one that names existing files is meant.
    rivals = [name for name, role in columns.rivals.items() if role == "image"]

    def found(name: str) -> int:
        cells = [record.cells.get(name) for record in table.records[:20]]
        return sum(any(map(folder.exists, cell_paths(cell, folder.exists))) for cell in cells)

    best = max([columns.first_image, *rivals], key=found)
    if best == columns.first_image:
        return columns
    return find_columns(table.columns, given | {"image": (best,)}, str(path))


def _with_chat_images(
    table: TableContent, given: Mapping[str, tuple[str, ...]]
) -> Mapping[str, tuple[str, ...]]:
    """Take the images from the messages of chats if no column names them."""
    named = any(normalised(name) in SYNONYMS["image"] for name in table.columns)
    if CHAT_IMAGES not in table.columns or "image" in given or named:
        return given
    return {**given, "image": (CHAT_IMAGES,)}


def _one_split_per_patient(entries: Sequence[Entry]) -> tuple[list[Entry], list[str]]:
    """Fill in patients, and put all rows of a patient into the split that is held out most strictly.

    Without a column of patients, rows that share an image belong together.
    """
    linked: dict[Path, Path] = {}

    def root(path: Path) -> Path:
        while linked.setdefault(path, path) != path:
            path = linked[path]
        return path

    for entry in entries:
        if not entry.patient:
            for path in entry.images[1:]:
                linked[root(path)] = root(entry.images[0])
    named = Counter(stem(root(entry.images[0])) for entry in entries if not entry.patient)
    roots = {root(entry.images[0]) for entry in entries if not entry.patient}
    repeated = (
        {name for name in named if sum(stem(path) == name for path in roots) > 1}
        if len(named) < len(roots)
        else set()
    )

    def patient(entry: Entry) -> str:
        path = root(entry.images[0])
        name = stem(path) if key_text(stem(path)) else path.name  # an image may be called none.png
        return f"{path.parent.name}/{name}" if stem(path) in repeated else name

    filled = [entry if entry.patient else replace(entry, patient=patient(entry)) for entry in entries]
    stated: dict[str, set[Split]] = defaultdict(set)
    for entry in filled:
        stated[entry.patient] |= {entry.split} if entry.split else set()
    strictest = {key: max(splits, key=SPLITS.index) for key, splits in stated.items() if splits}
    torn = [key for key, splits in stated.items() if len(splits) > 1]
    notes = []
    if torn:
        rows = [entry for entry in filled if entry.patient == torn[0]]
        places = " and ".join(
            f"{split} (row {next(e.record.number for e in rows if e.split == split)})"
            for split in SPLITS
            if split in stated[torn[0]]
        )
        notes.append(
            f"{len(torn)} patient{'s are' if len(torn) > 1 else ' is'} in several splits, such as {places}; all rows of "
            f"such a patient go to the one that is held out most strictly"
        )
    return [replace(entry, split=strictest.get(entry.patient)) for entry in filled], notes


def _cases(
    entries: Sequence[Entry], columns: Columns, options: TableOptions, notes: list[str]
) -> tuple[list[Case], dict[str, tuple[tuple[str, int], ...]], list[RefusedRow]]:
    """Cases, the rows of each, and rows whose id belongs to another case."""
    groups: dict[object, list[Entry]] = {}
    refused: list[RefusedRow] = []
    owner: dict[str, Entry] = {}
    shown: dict[Path, Entry] = {}
    for entry in entries:
        others = [shown.setdefault(image, entry) for image in entry.images]
        if other := next((each for each in others if each.patient != entry.patient), None):
            reason = (
                f"is {entry.patient!r}, but row {other.record.number} says {other.patient!r} about the same image; "
                "correct one of them"
            )
            refused.append(RefusedRow(entry.record.number, columns["patient"][0], reason, entry.record.file))
            continue
        if entry.id:
            first = owner.setdefault(entry.id, entry)
            if (first.images, first.patient) != (entry.images, entry.patient):
                reason = (
                    f"the id {entry.id!r} is that of row {first.record.number} too, which has other images; "
                    "make ids unique, or leave the column out by --id-column none"
                )
                refused.append(RefusedRow(entry.record.number, columns["id"][0], reason, entry.record.file))
                continue
            key: object = entry.id
        else:
            key = (entry.images, entry.patient) if options.group else entry.place
        groups.setdefault(key, []).append(entry)
    cases: list[Case] = []
    table_rows: dict[str, tuple[tuple[str, int], ...]] = {}
    taken: set[str] = set()
    repeats = 0
    for group in groups.values():
        first = group[0]
        name = _case_name(first, taken)
        turns = list(dict.fromkeys(turn for entry in group for turn in entry.turns))
        repeats += sum(
            not set(entry.turns) - {t for e in group[:i] for t in e.turns} for i, entry in enumerate(group)
        )
        cases.append(
            Case(
                id=name,
                patient=first.patient,
                split=first.split,
                images=tuple(
                    ImageFile(path=path, modality=first.modality, plane=first.plane) for path in first.images
                ),
                turns=tuple(turns),
            )
        )
        table_rows[name] = tuple(entry.place for entry in group)
    if repeats:
        notes.append(
            f"{repeats} row{'s repeat' if repeats > 1 else ' repeats'} an earlier one and add{'' if repeats > 1 else 's'} nothing"
        )
    joined = sum(len(group) for group in groups.values()) - len(groups) - repeats
    if joined > 0:
        notes.append(
            f"{joined} row{'s are' if joined > 1 else ' is'} about the images of an earlier row and "
            f"{'are' if joined > 1 else 'is'} joined to it"
        )
    return cases, table_rows, refused


def _case_name(entry: Entry, taken: set[str]) -> str:
    base = entry.id or stem(entry.images[0])
    name, number = base, 2
    while name in taken:
        name, number = f"{base}-{number}", number + 1
    taken.add(name)
    return name


def _overview(path: Path, table: TableContent, columns: Columns, cases: Sequence[Case]) -> list[str]:
    found = len(table.records) + len(table.refused)
    patients = len({case.patient for case in cases})
    lines = [
        f"{path}: {found} row{'s' * (found != 1)}, {len(cases)} with different images, {patients} patients"
    ]
    for role in SYNONYMS:
        if columns[role]:
            lines.append(f"  {role:<10} {', '.join(map(repr, columns[role]))}")
    if columns.unused:
        rivals = [
            f"{name!r} (looks like {columns.rivals[name]})" if name in columns.rivals else repr(name)
            for name in columns.unused
        ]
        lines.append(f"  {'not used':<10} {', '.join(rivals[:10])}{', ...' if len(rivals) > 10 else ''}")
    return lines


def _previewed(entry: Entry, folder: Path) -> list[str]:
    names = [
        path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name
        for path in entry.images
    ]
    sheet = f"{entry.record.file}: " if entry.record.file else ""
    lines = [
        f"{sheet}row {entry.record.number}: {', '.join(names)}{f' ({entry.modality})' if entry.modality else ''}"
    ]
    for turn in entry.turns[:_PREVIEWED]:
        if turn.turn_kind == "vqa":
            lines += [f"  Q: {_short(turn.question)}", f"  A: {_short(turn.answer)}"]
        else:
            lines.append(f"  {turn.turn_kind}: {_short(turn.answer)}")
    return lines


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _PREVIEW_CHARACTERS else f"{line[:_PREVIEW_CHARACTERS]}..."
