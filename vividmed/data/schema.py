"""The three kinds of rows that vividmed trains on, as Hugging Face ``datasets`` features.

Any data set with these columns loads with plain ``load_dataset`` and needs no code of this project. Every row carries
its images inline: 2D images in ``images``, volumes in ``volumes``; a text mentions those in ``images`` first.
``patient`` is a pseudonymous key: all rows of a patient belong to one split. Prepared rows have one more column,
``grids``, with the sizes of their images; it may be missing or null, see :mod:`vividmed.data.image_grids`.

Masks and boxes lie on the grid of the row's only image as :mod:`vividmed.processing.reading` gives it, axes
(z, y, x) with z of size 1 for a 2D image; see :mod:`vividmed.data.masks`.
"""

from collections.abc import Mapping
from typing import Any, Literal

from datasets import Features, Image, List, Nifti, Value

from vividmed.data import image_grids
from vividmed.data.masks import check_box, unpack_mask
from vividmed.errors import VividMedError

RowKind = Literal["vision_language", "localization", "grounded_report"]

_STRING = Value("string")
_BOX = List(Value("int32"), length=6)


def _row(columns: dict[str, Any]) -> Features:
    """Columns that all kinds share, around those of one kind."""
    return Features(
        {
            "id": _STRING,
            "patient": _STRING,
            "images": List(Image()),
            "volumes": List(Nifti()),
            "modality": _STRING,
            **columns,
            "source": _STRING,
            "licence": _STRING,
        }
    )


VISION_LANGUAGE = _row(
    {
        "plane": _STRING,
        "messages": List({"role": _STRING, "content": _STRING}),
        "kind": _STRING,
    }
)
"""A conversation about the images; the images belong to the first user turn."""

LOCALIZATION = _row(
    {
        "targets": List(_STRING),
        "absent": List(_STRING),
        "masks": List({"target": _STRING, "box": _BOX, "bits": Value("binary")}),
        "boxes": List({"target": _STRING, "box": _BOX}),
        "incomplete": List(_STRING),
    }
)
"""Targets that are present, with masks or boxes, and targets that were searched for and are not there.

A name in neither list was not annotated: nothing is known about it. A target in ``incomplete`` may extend beyond its
masks and boxes, for example if only some lymph nodes were drawn: what lies outside them is not background.
"""

GROUNDED_REPORT = _row(
    {
        "report": _STRING,
        "phrases": List(
            {"text": _STRING, "start": Value("int32"), "end": Value("int32"), "targets": List(_STRING)}
        ),
        "masks": List({"target": _STRING, "box": _BOX, "bits": Value("binary")}),
        "boxes": List({"target": _STRING, "box": _BOX}),
        "incomplete": List(_STRING),
    }
)
"""A report with ``<p>phrase</p>`` markers; ``start`` and ``end`` are offsets in the text without markers."""

SCHEMAS: dict[str, Features] = {
    "vision_language": VISION_LANGUAGE,
    "localization": LOCALIZATION,
    "grounded_report": GROUNDED_REPORT,
}

_PHRASE_OPEN, _PHRASE_CLOSE = "<p>", "</p>"
_REQUIRED_TEXT = ("id", "patient", "source", "licence")  # the modality is not always recorded


def schema(row_kind: str) -> Features:
    """Features of one kind of row.

    Raises:
        VividMedError: the kind is unknown.
    """
    if row_kind not in SCHEMAS:
        raise VividMedError(f"{row_kind!r} is not a kind of row; use one of {', '.join(SCHEMAS)}")
    return SCHEMAS[row_kind]


def prepared_schema(row_kind: str) -> Features:
    """Features of prepared rows of one kind: those that a row needs, and ``grids``.

    Raises:
        VividMedError: the kind is unknown.
    """
    return Features({**schema(row_kind), image_grids.COLUMN: image_grids.FEATURE})


def row_kind_of(row: Mapping[str, Any]) -> RowKind:
    """The kind of a row, inferred from its columns."""
    if "messages" in row:
        return "vision_language"
    return "grounded_report" if "report" in row else "localization"


def validate_row(row_kind: str, row: Mapping[str, Any]) -> None:
    """Check everything about one row that the column types do not ensure.

    Args:
        row_kind: ``vision_language``, ``localization`` or ``grounded_report``.
        row: a row with images encoded or decoded. If they are decoded, masks and boxes are also checked against the
            grid of the image.

    Raises:
        VividMedError: a field is missing or wrong; the message names the row's id and the field.
    """
    columns = schema(row_kind)
    where = f"row {row.get('id') or '(without id)'}"
    for name, feature in columns.items():
        if name not in row:
            raise VividMedError(f"{where}: field {name!r} is missing; a {row_kind} row needs it")
        if isinstance(feature, List) and row[name] is None:
            raise VividMedError(f"{where}: field {name!r} is null; give a list, which may be empty")
        if isinstance(feature, List) and any(entry is None for entry in row[name]):
            raise VividMedError(f"{where}: field {name!r} has a null entry; fill or remove it")
    for name in _REQUIRED_TEXT:
        if not row[name]:
            raise VividMedError(f"{where}: field {name!r} is empty; fill it")
    if not row["images"] and not row["volumes"]:
        raise VividMedError(f"{where}: fields 'images' and 'volumes' are both empty; a row needs an image")
    _check_grids(row, where)
    if row_kind == "vision_language":
        _check_messages(row["messages"], where)
        return
    if len(row["images"]) + len(row["volumes"]) != 1:
        raise VividMedError(
            f"{where}: fields 'masks' and 'boxes' refer to a single image, but there are several"
        )
    located = _check_locations(row, where)
    if stray := set(row["incomplete"]) - located:
        raise VividMedError(f"{where}: field 'incomplete' names {sorted(stray)[0]!r} without a mask or a box")
    if row_kind == "localization":
        _check_targets(row, located, where)
    else:
        _check_phrases(row, located, where)


def _check_messages(messages: list[dict[str, str]], where: str) -> None:
    if not messages:
        raise VividMedError(f"{where}: field 'messages' is empty; give a user turn and an assistant turn")
    for number, message in enumerate(messages):
        expected = ("user", "assistant")[number % 2]
        if message["role"] != expected:
            raise VividMedError(
                f"{where}: field 'messages', turn {number} has the role {message['role']!r}; "
                f"turns alternate and this one is for the {expected}"
            )
        if not message["content"].strip():
            raise VividMedError(f"{where}: field 'messages', turn {number} is empty; write or drop it")


def _check_grids(row: Mapping[str, Any], where: str) -> None:
    grids = row.get(image_grids.COLUMN)
    count = len(row["images"]) + len(row["volumes"])
    if grids is not None and len(grids) != count:
        raise VividMedError(
            f"{where}: field 'grids' describes {len(grids)} images, but there are {count}; correct or remove it"
        )
    shape = _grid(row) if count == 1 else None
    if grids and shape and list(grids[0]["size"]) != shape:
        raise VividMedError(
            f"{where}: field 'grids' states the size {list(grids[0]['size'])}, but the image has {shape}; correct or "
            "remove it"
        )


def _check_locations(row: Mapping[str, Any], where: str) -> set[str]:
    """Check masks and boxes and return the targets that have one."""
    shape = _grid(row)
    for name in ("masks", "boxes"):
        for entry in row[name]:
            what = f"{where}: field {name!r}, {entry['target']!r}"
            try:
                # Without a decoded image only the box bounds the grid.
                extent = shape or [max(1, int(v)) for v in entry["box"][3:]]
                check_box(entry["box"], extent, "box")
                if name == "masks":
                    unpack_mask(entry, extent)
            except VividMedError as error:
                raise VividMedError(f"{what}: {error}") from error
    return {entry["target"] for name in ("masks", "boxes") for entry in row[name]}


def _check_targets(row: Mapping[str, Any], located: set[str], where: str) -> None:
    present, absent = set(row["targets"]), set(row["absent"])
    if both := present & absent:
        raise VividMedError(f"{where}: field 'absent' repeats {sorted(both)[0]!r} of 'targets'; keep one")
    if missing := present - located:
        raise VividMedError(f"{where}: field 'targets' names {sorted(missing)[0]!r} without a mask or a box")
    if stray := located - present:
        raise VividMedError(
            f"{where}: field 'masks' or 'boxes' contains {sorted(stray)[0]!r}, which is not in 'targets'"
        )


def _check_phrases(row: Mapping[str, Any], located: set[str], where: str) -> None:
    report = row["report"]
    plain = report.replace(_PHRASE_OPEN, "").replace(_PHRASE_CLOSE, "")
    if report.count(_PHRASE_OPEN) != len(row["phrases"]):
        raise VividMedError(
            f"{where}: field 'report' marks {report.count(_PHRASE_OPEN)} phrases, "
            f"but 'phrases' lists {len(row['phrases'])}; list every marked phrase in order"
        )
    marked = report
    for number, phrase in enumerate(row["phrases"]):
        text = phrase["text"]
        opening = marked.find(_PHRASE_OPEN)
        inner = marked[opening + len(_PHRASE_OPEN) :]
        start_in_plain = len(plain) - len(inner.replace(_PHRASE_OPEN, "").replace(_PHRASE_CLOSE, ""))
        if not inner.startswith(f"{text}{_PHRASE_CLOSE}") or phrase["start"] != start_in_plain:
            raise VividMedError(
                f"{where}: field 'phrases', number {number} ({text!r}) is not the marked phrase at that place"
            )
        if plain[phrase["start"] : phrase["end"]] != text:
            raise VividMedError(
                f"{where}: field 'phrases', number {number}: characters {phrase['start']} to {phrase['end']} "
                f"of the unmarked text are not {text!r}"
            )
        if missing := set(phrase["targets"]) - located:
            raise VividMedError(
                f"{where}: field 'phrases', number {number} names {sorted(missing)[0]!r} without a mask or a box"
            )
        marked = inner[len(text) + len(_PHRASE_CLOSE) :]


def _grid(row: Mapping[str, Any]) -> list[int] | None:
    """(D, H, W) of the row's image if it is decoded, else None."""
    image = (list(row["images"]) + list(row["volumes"]))[0]
    if hasattr(image, "size") and hasattr(image, "mode"):
        return [1, image.size[1], image.size[0]]
    if hasattr(image, "dataobj"):
        return list(image.shape[:3][::-1])
    return None


def numbered(target: str, number: int) -> str:
    """Name of one of several places of a target in a grounded report: ``lung nodule #2``.

    Phrases find their masks and boxes by name. If two phrases of a report show different places of one target, the
    places need different names. :func:`plain_target` removes the number.
    """
    return f"{target} #{number}"


def plain_target(name: str) -> str:
    """The target of a :func:`numbered` name; other names are returned as they are."""
    target, mark, number = name.rpartition(" #")
    return target if mark and number.isdigit() else name
