"""Cases of a folder of images with ``metadata.csv`` or ``metadata.jsonl``, as ``datasets`` calls an image folder."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

from vividmed.data.own.image_paths import ImageFolder
from vividmed.data.own.listing import OwnListing
from vividmed.data.own.table import listing_of_table
from vividmed.data.own.table_content import SPLIT_COLUMN, TableContent
from vividmed.data.own.table_rows import TableOptions, is_header_for
from vividmed.data.own.tabular import read_tabular
from vividmed.data.raw.case import Case
from vividmed.data.raw.splits import official_split
from vividmed.errors import VividMedError

NAMES = ("metadata.csv", "metadata.jsonl", "metadata.tsv")


def read_imagefolder_listing(folder: Path, options: TableOptions | None = None) -> OwnListing:
    """Read a folder with a metadata file, or with folders of this form that are named after splits.

    Args:
        folder: folder of the images. ``file_name`` in a metadata file is relative to the file's own folder.
        options: as for a table.

    Raises:
        VividMedError: there is no metadata file, or it cannot be used.
    """
    options = options or TableOptions()
    if not folder.is_dir():
        raise VividMedError(f"{folder}: no such folder; give the folder of the images")
    found = {
        place: [path for name in NAMES if (path := place / name).is_file()]
        for place in [folder, *_folders(folder)]
    }
    for place, several in found.items():
        if len(several) > 1:
            raise VividMedError(
                f"{place}: contains {' and '.join(p.name for p in several)}; keep one of them"
            )
    files = [path for several in found.values() for path in several]
    if not files:
        raise VividMedError(
            f"{folder}: contains no {NAMES[0]} or {NAMES[1]}; add one with the column file_name and those of the texts"
        )
    listings = []
    for path in files:
        table = read_tabular(
            path, is_header_for(options), encoding=options.encoding, delimiter=options.delimiter
        )
        if len(files) > 1:
            _name_split(table, path.parent)
        listings.append(listing_of_table(path, table, ImageFolder(path.parent), options))
    listing = listings[0] if len(listings) == 1 else _joined(folder, listings)
    return _with_splits_of_folders(listing, folder)


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _name_split(table: TableContent, folder: Path) -> None:
    """Name the folder in all of its records, and the split that it is called after."""
    added = {SPLIT_COLUMN: folder.name} if official_split(folder.name) else {}
    table.columns = (*table.columns, *added)
    table.records = [replace(r, file=folder.name, cells={**r.cells, **added}) for r in table.records]
    table.refused = [replace(row, file=folder.name) for row in table.refused]


def _with_splits_of_folders(listing: OwnListing, folder: Path) -> OwnListing:
    """Take the splits from the names of the folders that the images lie in, if the metadata states none.

    A patient in several splits is noted; the preparation puts such a patient into the one that is held out most strictly.
    """
    cases = [case for case in listing.cases if isinstance(case, Case)]
    if not listing.has_splits:
        places = [case.images[0].path.absolute().relative_to(folder.absolute()).parts for case in cases]
        splits = [official_split(parts[0]) if len(parts) > 1 else None for parts in places]
        if not all(splits):
            return listing
        cases = [replace(case, split=split) for case, split in zip(cases, splits, strict=True)]
        note = "the splits are those that the folders of the images are named after"
        listing = replace(listing, cases=tuple(cases), has_splits=True, notes=(*listing.notes, note))
    stated = {(case.patient, case.split) for case in cases if case.split}
    torn = sorted(name for name, number in Counter(patient for patient, _ in stated).items() if number > 1)
    if not torn:
        return listing
    note = (
        f"{len(torn)} patient{'s are' if len(torn) > 1 else ' is'} in the folders of several splits, such as {torn[0]!r}; all "
        "rows of such a patient go to the split that is held out most strictly"
    )
    return replace(listing, notes=(*listing.notes, note))


def _joined(folder: Path, listings: list[OwnListing]) -> OwnListing:
    """All listings as one; cases whose name occurs in several folders get that of their folder."""
    names = Counter(case.id for listing in listings for case in listing.cases)
    cases, rows = [], {}
    for listing in listings:
        for case in listing.cases:
            assert isinstance(case, Case)
            places = listing.table_rows[case.id]
            if names[case.id] > 1:
                case = replace(case, id=f"{listing.origin.name}/{case.id}")
            if not listing.has_patients:
                case = replace(case, patient=f"{listing.origin.name}/{case.patient}")
            cases.append(case)
            rows[case.id] = places
    return replace(
        listings[0],
        origin=folder.absolute(),
        cases=tuple(cases),
        modalities=tuple(dict.fromkeys(name for listing in listings for name in listing.modalities)),
        has_patients=all(listing.has_patients for listing in listings),
        has_splits=any(listing.has_splits for listing in listings),
        refused=tuple(row for listing in listings for row in listing.refused),
        table_rows=rows,
        notes=tuple(dict.fromkeys(note for listing in listings for note in listing.notes)),
        overview=tuple(line for listing in listings for line in listing.overview),
    )
