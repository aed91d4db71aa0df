"""Write a grounded report as one interactive page, in one file."""

import base64
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from transformers.utils import logging

from vividmed.data.masks import pack_mask
from vividmed.errors import VividMedError
from vividmed.export.findings import Finding, collect_findings, crop, split_text
from vividmed.export.intensity import display_range, sample_intensities, window_presets
from vividmed.export.measurements import tabulate
from vividmed.export.palette import text_colour
from vividmed.export.planes import Plane, display_planes
from vividmed.files import write_atomically
from vividmed.processing.grounded_text import GroundedText
from vividmed.processing.medical_image import MedicalImage
from vividmed.triples import Triple

logger = logging.get_logger(__name__)

_PANEL_DATA = '<script type="application/json" id="panel-data">{}</script>'
_SCRIPTS = ("slice_view.js", "viewer.js")
_TAILS = (0.05, 99.95)
"""Percentiles between which the 256 grey levels lie."""


@dataclass(frozen=True)
class Panel:
    """A panel below the report, with a script of its own.

    Attributes:
        markup: HTML of the panel; it must not contain text of reports, which belongs into ``data``.
        script: JavaScript; it finds its data in the element ``panel-data``.
        style: CSS.
        data: anything that JSON can express.
    """

    markup: str = ""
    script: str = ""
    style: str = ""
    data: Any = None


def html(
    image: MedicalImage,
    grounded: GroundedText,
    path: str | Path,
    *,
    window: Sequence[float] | None = None,
    max_values: int = 12_000_000,
    panel: Panel | None = None,
) -> Path:
    """Write a page that shows the report next to its image.

    The page scrolls through axial, coronal and sagittal slices (one view of a 2D image), in the proportions and
    directions of :func:`vividmed.export.overlay`. A click on a phrase goes to its finding, and a second one hides it or
    shows it again; pointing at a phrase or at a finding highlights both. It is one file without links, works
    from disk, contacts no server (a content security policy forbids it), and contains nothing about the patient but
    the image and the text. It needs a browser of 2023 or later.

    Intensities are stored with 256 grey levels, placed where the image has most of its voxels. An image of more than
    ``max_values`` values is averaged over blocks of voxels, the finest axis first, and masks with it; the page and the
    log say so. The file takes at most 1.4 bytes per value, and usually half of that.

    Args:
        image: the image as read.
        grounded: text, phrases, and their masks and boxes on the image's original grid.
        path: ``.html`` file to write; folders are created.
        window: (level, width) of the intensities shown first, in the image's units; by default as for overlays. The
            page has controls for it.
        max_values: largest number of stored values, voxels times channels.
        panel: further controls below the report.

    Returns:
        The file.

    Raises:
        VividMedError: a mask of another grid, a box outside the image or inverted, a phrase outside the text, an
            unusable window or limit, or a path that cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise VividMedError(f"{path}: the page is an HTML file; give a path that ends in .html")
    if max_values < 1000:
        raise VividMedError(f"max_values = {max_values} leaves no image to see; give at least 1000")
    findings = collect_findings(image, grounded)
    factors = _reduction(image, max_values)
    if factors != (1, 1, 1):
        logger.info(f"{path}: image averaged over blocks of {factors} voxels (z, y, x)")
    content = {
        "image": _image(image, factors, window),
        "planes": [_plane(plane, factors) for plane in display_planes(image)],
        "text": [
            [piece, finding and finding.number] for piece, finding in split_text(grounded.text, findings)
        ],
        "findings": [_finding(finding, factors) for finding in findings],
    }
    controls = "" if panel is None else f"{panel.markup}{_PANEL_DATA.format(_json(panel.data))}"
    panel = panel or Panel()
    viewer = files("vividmed.export") / "viewer"
    page = Template((viewer / "viewer.html").read_text(encoding="utf-8")).substitute(
        style="\n".join([(viewer / "viewer.css").read_text(encoding="utf-8"), panel.style]),
        script="\n".join([(viewer / name).read_text(encoding="utf-8") for name in _SCRIPTS] + [panel.script]),
        data=_json(content),
        panel=controls,
        measured=_measured_table(image, findings),
    )
    write_atomically(path, page.encode())
    return path


def _json(content: Any) -> str:
    """JSON for a script element, inside which only "<" could end the data early."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _measured_table(image: MedicalImage, findings: list[Finding]) -> str:
    """What was measured on the masks, as HTML apart from the report; empty if nothing was."""
    names, measured = tabulate(image, findings)
    if not measured:
        return ""
    header = "".join(f"<th>{name}</th>" for name in names)
    rows = ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in measured]
    caption = "Measured on the masks, not written by the model"
    return f'<table id="measured"><caption>{caption}</caption><tr>{header}</tr>{"".join(rows)}</table>'


def _reduction(image: MedicalImage, max_values: int) -> Triple:
    """Block of voxels (z, y, x) to average, so that few enough values remain; keeps voxels close to cubes."""
    factors = [1, 1, 1]
    while len(image.array) * np.prod(_reduced(image.size, factors)) > max_values:
        spacing = [
            mm * factor if factor < size else np.inf
            for mm, factor, size in zip(image.spacing, factors, image.size, strict=True)
        ]
        factors[int(np.argmin(spacing))] += 1
    z, y, x = factors
    return z, y, x


def _reduced(size: Sequence[int], factors: Sequence[int]) -> tuple[int, ...]:
    return tuple(-(-voxels // factor) for voxels, factor in zip(size, factors, strict=True))


def _block_mean(array: np.ndarray, factors: Triple) -> np.ndarray:
    """Mean of blocks of the last three axes, float32; blocks at the far edges may be smaller."""
    for axis, factor in zip((-3, -2, -1), factors, strict=True):
        if factor > 1:
            starts = np.arange(0, array.shape[axis], factor)
            counts = np.diff(starts, append=array.shape[axis])
            shape = [1] * array.ndim
            shape[axis] = len(counts)
            sums = np.add.reduceat(array, starts, axis=axis, dtype=np.float32)
            array = sums / counts.reshape(shape).astype(np.float32)
    return array


def _image(image: MedicalImage, factors: Triple, window: Sequence[float] | None) -> dict:
    low, high = display_range(image, window)
    levels = _grey_levels(image, low, high)
    values = np.nan_to_num(_block_mean(image.array, factors), nan=levels[0])
    # The nearest level: the borders lie half-way between neighbours.
    codes = np.searchsorted((levels[:-1] + levels[1:]) / 2, values).astype(np.uint8)
    return {
        "voxels": _encode(codes.tobytes()),
        "channels": len(codes),
        "size": list(codes.shape[1:]),
        "originalSize": list(image.size),
        "factors": list(factors),
        "levels": [float(f"{level:.6g}") for level in levels],
        "window": [(low + high) / 2, high - low],
        "presets": window_presets(image, lowest=levels[0]),
    }


def _grey_levels(image: MedicalImage, low: float, high: float) -> np.ndarray:
    """256 rising intensities to store: half spread evenly, half by the histogram.

    A CT then keeps steps of a few HU in soft tissue, where windows are narrow, although it reaches from air to metal.
    """
    if image.array.dtype == np.uint8:
        return np.arange(256.0)
    values = sample_intensities(image)
    tails = np.percentile(values, _TAILS)
    grid = np.linspace(min(tails[0], low), max(tails[1], high), 4097)
    counts, _ = np.histogram(values.clip(grid[0], grid[-1]), bins=grid)
    share = np.concatenate([[0.0], np.cumsum(counts) / counts.sum()])
    return np.interp(np.linspace(0, 1, 256), (share + np.linspace(0, 1, 4097)) / 2, grid)


def _plane(plane: Plane, factors: Triple) -> dict:
    axes = (plane.axis, plane.rows, plane.columns)
    return {
        "name": plane.name,
        "axes": axes,
        "flips": (False, plane.flip_rows, plane.flip_columns),
        "spacing": [mm * factors[axis] for mm, axis in zip(plane.spacing, axes, strict=True)],
        "extent": plane.extent,
        "letters": plane.letters,
    }


def _finding(finding: Finding, factors: Triple) -> dict:
    scale = np.tile(factors, 2)
    return {
        "number": finding.number,
        "colour": finding.colour,
        "textColour": text_colour(finding.colour),
        "found": finding.found,
        "slices": [index // factor for index, factor in zip(finding.slices(), factors, strict=True)]
        if finding.found
        else None,
        "mask": _mask(finding, factors),
        "boxes": (finding.boxes / scale).tolist(),
        "scores": finding.scores,
    }


def _mask(finding: Finding, factors: Triple) -> dict | None:
    if finding.mask is None or finding.mask_box is None:
        return None
    low = [first // factor for first, factor in zip(finding.mask_box[:3], factors, strict=True)]
    high = _reduced(finding.mask_box[3:], factors)
    # Whole blocks around the mask.
    corners = [edge * factor for edges in (low, high) for edge, factor in zip(edges, factors, strict=True)]
    share = _block_mean(crop(finding.mask, corners), factors)
    # A finding that fills no block by half would vanish; show every block that it touches.
    inside = share >= 0.5 if (share >= 0.5).any() else share > 0
    reduced = np.zeros(_reduced(finding.mask.shape, factors), dtype=bool)
    crop(reduced, [*low, *high])[:] = inside
    packed = pack_mask("", reduced)
    return {"box": packed["box"], "bits": base64.b64encode(packed["bits"]).decode()}


def _encode(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content)).decode()
