"""Write one page per study on which a reader accepts, rejects or edits phrases and places, and an index of them."""

import html as markup
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

from vividmed.data.batches.examples import read_images
from vividmed.data.masks import unpack_mask
from vividmed.data.pseudo_labels.localizing import Localizing
from vividmed.data.pseudo_labels.review import Item, items_of
from vividmed.data.pseudo_labels.sources import Source
from vividmed.data.pseudo_labels.study import Study, digest
from vividmed.data.taxonomy import Taxonomy
from vividmed.errors import VividMedError
from vividmed.export.html import Panel, html
from vividmed.files import write_atomically
from vividmed.processing.grounded_text import GroundedText, Phrase
from vividmed.processing.medical_image import MedicalImage

_MAX_VALUES = 6_000_000
_READ_AT_ONCE = 100
_INDEX = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Review</title>
<style>
body {{ background: #181a1e; color: #e8eaed; font: 16px/1.6 system-ui, sans-serif; margin: 24px; }}
a {{ color: #8ab4f8; }}
td {{ padding-right: 24px; }}
</style>
</head>
<body>
<h1>Review: {pages} pages, {items} items</h1>
<p>Decide on each page and save the decisions as CSV. Then merge the tables of all pages and readers with
<code>vividmed ground-reports review --decisions</code>.</p>
<table>
{lines}
</table>
</body>
</html>
"""


@dataclass(frozen=True)
class WrittenPages:
    """How much was written for review."""

    pages: int
    items: int


def write_review_pages(
    source: Source, folder: Path, reader: Localizing, *, everything: bool = False
) -> WrittenPages:
    """Write a page for each image of each study with an item to decide on.

    Args:
        source: studies after ``localize``.
        folder: folder to write to.
        reader: reads the rows that the studies come from.
        everything: also show items that all checks agreed on, and studies with nothing else.

    Raises:
        VividMedError: there is nothing to review, or a page cannot be written.
    """
    lines, items = [], 0
    for study in _studies(source):
        chosen = items_of(study, everything=everything)
        if not chosen:
            continue
        items += len(chosen)
        (row,) = reader.rows([study])
        name = _file_name(study)
        for number, image in enumerate(read_images(row)):
            page = f"{name}.html" if number == 0 else f"{name}_{number}.html"
            # All decisions about a study are made on its first page.
            panel = _panel(study, chosen, name) if number == 0 else None
            html(image, _grounded(study, number, image), folder / page, max_values=_MAX_VALUES, panel=panel)
            title = f"{study.id}, image {number + 1}" if number else study.id
            count = f"{len(chosen)} items" if number == 0 else ""
            lines.append(
                f'<tr><td><a href="{markup.escape(page)}">{markup.escape(title)}</a></td><td>{count}</td></tr>'
            )
    if not lines:
        raise VividMedError("nothing needs a decision; use --everything to see what all checks agreed on")
    write_atomically(
        folder / "index.html", _INDEX.format(pages=len(lines), items=items, lines="\n".join(lines))
    )
    return WrittenPages(len(lines), items)


def _studies(source: Source) -> Iterator[Study]:
    for start in range(0, len(source), _READ_AT_ONCE):
        yield from source.load(start, start + _READ_AT_ONCE)


def _panel(study: Study, items: list[Item], name: str) -> Panel:
    viewer = files("vividmed.export") / "viewer"
    controls, script, style = (
        (viewer / f"review.{end}").read_text(encoding="utf-8") for end in ("html", "js", "css")
    )
    data = {
        "id": study.id,
        "run": study.key[:12],
        "file": name,
        "items": [
            {"name": item.name, "text": item.text, "target": item.target, "reasons": item.reasons}
            for item in items
        ],
        "targets": [target.name for target in Taxonomy.load()],
    }
    return Panel(controls, script, style, data)


def _grounded(study: Study, number: int, image: MedicalImage) -> GroundedText:
    """The report with its phrases, and the places of their targets in one image."""
    phrases = []
    for phrase in study.phrases:
        places = [
            place
            for place in study.places
            if place.image == number and (place.target, place.side) == (phrase.target, phrase.side)
        ]
        masks = [unpack_mask(place.packed, image.size) for place in places if place.label_type == "mask"]
        boxes = [place for place in places if place.label_type == "box"]
        scores = [place.score for place in boxes if place.score is not None]
        phrases.append(
            Phrase(
                phrase.text,
                phrase.start,
                phrase.end,
                mask=np.logical_or.reduce(masks) if masks else None,
                boxes=np.array([place.box for place in boxes], dtype=float).reshape(-1, 6),
                scores=np.array(scores) if len(scores) == len(boxes) else np.zeros(0),
            )
        )
    return GroundedText(study.text, phrases)


def _file_name(study: Study) -> str:
    """Name of a page: the study's id as far as file systems take it, and a digest that tells similar ids apart."""
    slug = re.sub(r"[^A-Za-z0-9]+", "-", study.id).strip("-")[:60] or "study"
    return f"{slug}-{digest(study.id)[:8]}"
