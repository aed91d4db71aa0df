"""Draws rows of a data set on one sheet, with their masks and boxes."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from vividmed.data.bad_rows import OnBadSample, prepare_row, skip_or_raise
from vividmed.data.batches.examples import read_images
from vividmed.data.masks import unpack_mask
from vividmed.errors import VividMedError
from vividmed.export.palette import finding_colour
from vividmed.export.planes import Plane, display_planes
from vividmed.processing.medical_image import MedicalImage

_COLUMNS = 4
_INCHES = 3.6
_NAMED = 8
_FILL = 0.35


@dataclass(frozen=True)
class Tile:
    """One row on the sheet.

    Attributes:
        row: row of any kind, with its images.
        title: text above the image.
        targets: names of the masks and boxes to draw; None draws all.
    """

    row: Mapping[str, Any]
    title: str
    targets: Collection[str] | None = None


def draw_contact_sheet(tiles: Sequence[Tile], path: Path, *, on_bad_sample: OnBadSample = "error") -> int:
    """Draw each 2D image as it is, and of each volume the slice that shows most targets, in radiological orientation.

    Masks are filled, boxes framed. Letters give the sides of the patient.

    Args:
        tiles: rows to draw.
        path: PNG file.
        on_bad_sample: what to do with rows that cannot be drawn: ``"error"``, or ``"skip"`` to leave their place empty
            with a warning.

    Returns:
        Number of rows drawn.

    Raises:
        VividMedError: there is nothing to draw, or a row cannot be drawn and is not to be skipped.
    """
    if not tiles:
        raise VividMedError("there are no rows to draw; choose another split or number")
    lines = -(-len(tiles) // _COLUMNS)
    figure = Figure(
        figsize=(_INCHES * min(_COLUMNS, len(tiles)), _INCHES * 1.25 * lines), layout="constrained"
    )
    axes = figure.subplots(lines, min(_COLUMNS, len(tiles)), squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    drawn = 0
    for axis, tile in zip(axes, tiles, strict=False):
        with skip_or_raise(on_bad_sample):
            prepare_row(tile.row, partial(_draw_row, axis, tile))
            drawn += 1
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return drawn


def _draw_row(axis: Axes, tile: Tile, row: Mapping[str, Any]) -> None:
    _draw(axis, tile)


def _draw(axis: Axes, tile: Tile) -> None:
    image = read_images(tile.row)[0]
    names = list(dict.fromkeys(e["target"] for key in ("masks", "boxes") for e in tile.row.get(key) or ()))
    names = [name for name in names if tile.targets is None or name in tile.targets]
    colours = {name: np.array(finding_colour(i)) / 255 for i, name in enumerate(names, start=1)}
    masks = {name: _mask(tile.row, name, image) for name in names}
    boxes = [(b["target"], np.array(b["box"])) for b in tile.row.get("boxes") or () if b["target"] in colours]
    planes = display_planes(image)
    plane = next((plane for plane in planes if plane.axis == 0), planes[0])
    index = _fullest_slice(plane, masks, boxes)
    grey = np.moveaxis(plane.cut(image.array, index), 0, -1).astype(float)
    picture = np.repeat(grey, 3 // grey.shape[-1], axis=-1)
    picture = (picture - picture.min()) / max(np.ptp(picture), 1e-6)
    visible = []
    for name, mask in masks.items():
        cut = None if mask is None else plane.cut(mask, index)
        if cut is not None and cut.any():
            picture[cut] = (1 - _FILL) * picture[cut] + _FILL * colours[name]
            visible.append(name)
    axis.imshow(picture, aspect=plane.spacing[1] / plane.spacing[2])
    for name, box in boxes:
        if box[plane.axis] <= index < box[plane.axis + 3]:
            top, left, bottom, right = plane.rectangle(box)
            frame = Rectangle(
                (left - 0.5, top - 0.5), right - left, bottom - top, fill=False, edgecolor=colours[name]
            )
            axis.add_patch(frame)
            visible.append(name)
    axis.set_title(tile.title if len(tile.title) <= 44 else f"{tile.title[:43]}…", fontsize=8)
    if plane.letters:
        for letter, x, y in zip(plane.letters, (0.01, 0.99, 0.5, 0.5), (0.5, 0.5, 0.98, 0.02), strict=True):
            across = "left" if x < 0.1 else "right" if x > 0.9 else "center"
            down = "top" if y > 0.9 else "bottom"
            drawn = axis.text(x, y, letter, transform=axis.transAxes, color="yellow", ha=across, va=down)
            drawn.set(fontsize=8, path_effects=[withStroke(linewidth=2, foreground="black")])
    _legend(axis, list(dict.fromkeys(visible)), colours)


def _legend(axis: Axes, names: list[str], colours: Mapping[str, np.ndarray]) -> None:
    handles = [Line2D([], [], color=tuple(colours[name]), linewidth=4, label=name) for name in names[:_NAMED]]
    if len(names) > _NAMED:
        handles.append(Line2D([], [], linestyle="none", label=f"and {len(names) - _NAMED} more"))
    if handles:
        axis.legend(
            handles=handles, fontsize=6, ncols=2, loc="upper center", bbox_to_anchor=(0.5, 0), frameon=False
        )


def _mask(row: Mapping[str, Any], name: str, image: MedicalImage) -> np.ndarray | None:
    """Union of the instances of a target, (D, H, W)."""
    parts = [unpack_mask(mask, image.size) for mask in row.get("masks") or () if mask["target"] == name]
    return np.logical_or.reduce(parts) if parts else None


def _fullest_slice(
    plane: Plane, masks: Mapping[str, np.ndarray | None], boxes: Sequence[tuple[str, np.ndarray]]
) -> int:
    """The slice that meets most targets, and among those the one that shows most of them."""
    others = tuple(axis for axis in range(3) if axis != plane.axis)
    score = np.zeros(plane.size[0])
    for mask in masks.values():
        if mask is not None:
            area = mask.sum(axis=others)
            score += (area > 0) + area / (1 + area.max())
    for _, box in boxes:
        score[box[plane.axis] : box[plane.axis + 3]] += 1
    return int(score.argmax()) if score.any() else plane.size[0] // 2
