"""Boxes as data sets give them: corners are checked, and boxes that do not fit their image are refused."""

from collections.abc import Sequence

from vividmed.data.masks import Box
from vividmed.data.raw.tables import finite
from vividmed.errors import VividMedError

MARGIN = 0.02
"""Share of the image's edge by which hand-drawn boxes may exceed the image."""

_LEAST_MARGIN = 2
_LARGEST_CORNER = 2**31 - 1

Boxes = tuple[tuple[str, Box], ...]


def box_2d(x0: object, y0: object, x1: object, y1: object, *, where: str) -> Box:
    """Box of a 2D image from pixel corners.

    Args:
        x0: left edge.
        y0: upper edge.
        x1: right edge, outside the box.
        y1: lower edge, outside the box.
        where: how errors name the box: the file and the row or record.

    Returns:
        (0, y0, x0, 1, y1, x1), rounded to the nearest pixel edge.

    Raises:
        VividMedError: A corner is not a finite number, or the corners are not in order.
    """
    corners = {
        name: finite(value, f"{where}: corner {name} of a box")
        for name, value in (("x0", x0), ("y0", y0), ("x1", x1), ("y1", y1))
    }
    for low, high in (("x0", "x1"), ("y0", "y1")):
        if corners[low] >= corners[high]:
            raise VividMedError(
                f"{where}: {low} = {corners[low]:g} of a box is not below {high} = {corners[high]:g}; "
                "give the corners in order"
            )
    if max(map(abs, corners.values())) > _LARGEST_CORNER:
        raise VividMedError(
            f"{where}: the box {tuple(corners.values())} is larger than any image; correct it"
        )
    left, top, right, bottom = (round(value) for value in corners.values())
    return 0, top, left, 1, bottom, right


def fit_boxes(
    boxes: Sequence[tuple[str, Box]],
    size: tuple[int, int, int],
    *,
    drawn_on: tuple[int, int] | None,
    margin: float,
    source: str,
) -> Boxes:
    """Cut boxes to their image after checking that they were drawn on it.

    Args:
        boxes: target and half-open corners (z0, y0, x0, z1, y1, x1).
        size: (D, H, W) of the image.
        drawn_on: (H, W) of the picture that the boxes refer to, None if unknown.
        margin: share of the image's edge by which a box may exceed the image. It applies where ``drawn_on`` is
            unknown: there, a box far outside is the only sign of a picture of another size.
        source: how errors name the image.

    Raises:
        VividMedError: The boxes were drawn on a picture of another size, or a box lies outside the image.
    """
    if boxes and drawn_on is not None and drawn_on != size[1:]:
        raise VividMedError(
            f"{source}: the boxes were drawn on a picture of {drawn_on[0]} x {drawn_on[1]} pixels (height x width), but "
            f"the image has {size[1]} x {size[2]}; give the original image"
        )
    fitted: list[tuple[str, Box]] = []
    for target, box in boxes:
        z0, y0, x0, z1, y1, x1 = (min(max(0, edge), limit) for edge, limit in zip(box, size * 2, strict=True))
        if z0 >= z1 or y0 >= y1 or x0 >= x1:
            raise VividMedError(
                f"{source}: the box {box} of {target!r} is empty or outside the image of size {size}; correct the box or "
                "leave it out"
            )
        if drawn_on is None:
            excess = [max(-low, high - n, 0) for low, high, n in zip(box[:3], box[3:], size, strict=True)]
            if any(e > max(_LEAST_MARGIN, margin * n) for e, n in zip(excess, size, strict=True)):
                raise VividMedError(
                    f"{source}: the box {box} of {target!r} exceeds the image of size {size}, as if it was drawn on a "
                    "picture of another size; give the original image or correct the box"
                )
        fitted.append((target, (z0, y0, x0, z1, y1, x1)))
    return tuple(fitted)
