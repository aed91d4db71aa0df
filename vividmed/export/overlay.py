"""Draw a grounded report as one image."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from vividmed.errors import VividMedError
from vividmed.export.findings import Finding, collect_findings
from vividmed.export.fonts import Font, FontOfSize, load_font
from vividmed.export.intensity import display_range, to_bytes
from vividmed.export.palette import text_colour
from vividmed.export.planes import Plane, display_planes
from vividmed.export.text_panel import BACKGROUND, FOREGROUND, MUTED, draw_text_panel, shorten
from vividmed.files import write_atomically
from vividmed.processing.grounded_text import GroundedText
from vividmed.processing.medical_image import MedicalImage

_COMPRESSION = 2
_MARGIN = 24
_GAP = 8
_HEADER = 40
_LARGEST_SLICE = 2.0
"""Height of a slice, at most this multiple of the image's width divided by its number of planes."""
_FILL = 0.3
"""Opacity of masks."""
_CONTOUR = 2
_CHIP_PADDING = 4


def overlay(
    image: MedicalImage,
    grounded: GroundedText,
    path: str | Path | None = None,
    *,
    window: Sequence[float] | None = None,
    width: int = 1200,
    font: str | Path | None = None,
) -> Image.Image:
    """Draw the findings of a report on its image, and the report below with its phrases in the same colours.

    A 2D image is drawn once with all findings. A volume gives one row per finding, with the axial, coronal and
    sagittal slice that show most of it; other findings met by these slices are outlined. Slices keep their proportions
    in mm, lie in radiological convention (the patient's right on the left) and carry the directions at
    their edges if the affine states them. Captions give the slice as an index of the array, counted from 0.

    Masks are a translucent fill with a contour, boxes a frame. Colours suit colour-blind readers, and every finding
    has its number too. Phrases without mask and boxes are grey. The drawing contains nothing about the patient but the
    image and the text.

    Args:
        image: the image as read.
        grounded: text, phrases, and their masks and boxes on the image's original grid.
        path: PNG file to write; folders are created.
        window: (level, width) of the intensities shown, in the image's units; by default the whole range of 8-bit
            images, and percentiles of others.
        width: width of the drawing in pixels.
        font: TrueType or OpenType file for scripts that the system's common fonts lack.

    Returns:
        An RGB image.

    Raises:
        VividMedError: a mask of another grid, a box outside the image or inverted, a phrase outside the text, an
            unusable window, width or font, or a path that cannot be written.
    """
    if width < 200:
        raise VividMedError(f"width {width} is too narrow for slices and text; give at least 200 pixels")
    if path is not None and Path(path).suffix.lower() != ".png":
        raise VividMedError(f"{path}: overlays are PNG files; give a path that ends in .png")
    findings = collect_findings(image, grounded)
    font_of_size = load_font(font)
    painter = _Painter(image, findings, width, font_of_size, window)
    parts = [*painter.rows(), draw_text_panel(grounded.text, findings, width, font_of_size)]
    picture = Image.new("RGB", (width, sum(part.height for part in parts)), BACKGROUND)
    top = 0
    for part in parts:
        picture.paste(part, (0, top))
        top += part.height
    if path is not None:
        stream = io.BytesIO()
        picture.save(stream, "PNG", compress_level=_COMPRESSION)
        write_atomically(Path(path), stream.getvalue())
    return picture


def draw_slices(
    image: MedicalImage,
    grounded: GroundedText,
    *,
    window: Sequence[float] | None = None,
    width: int = 1200,
    font: str | Path | None = None,
) -> list[Image.Image]:
    """Draw the rows of :func:`overlay` one by one, without the report; arguments and errors are the same."""
    findings = collect_findings(image, grounded)
    return _Painter(image, findings, width, load_font(font), window).rows()


class _Painter:
    """Draws slices of one image, all in one scale."""

    def __init__(
        self,
        image: MedicalImage,
        findings: list[Finding],
        width: int,
        font_of_size: FontOfSize,
        window: Sequence[float] | None,
    ):
        self.image = image
        self.planes = display_planes(image)
        self.range = display_range(image, window)
        self.found = [finding for finding in findings if finding.found]
        self.width = width
        self.font = font_of_size(15)
        self.header_font = font_of_size(20)
        room = width - 2 * _MARGIN - _GAP * (len(self.planes) - 1)
        heights, widths = zip(*(plane.extent for plane in self.planes), strict=True)
        limit = _LARGEST_SLICE * width / len(self.planes)
        self.pixels_per_mm = min(room / sum(widths), limit / max(heights))

    def rows(self) -> list[Image.Image]:
        """Draw one row of slices per finding of a volume; one row in all for a 2D image or without findings."""
        if len(self.planes) == 1 or not self.found:
            return [self._row([size // 2 for size in self.image.size], None)]
        return [self._row(finding.slices(), finding) for finding in self.found]

    def _row(self, position: Sequence[int], finding: Finding | None) -> Image.Image:
        slices = [self._slice(plane, position[plane.axis], finding) for plane in self.planes]
        header = _HEADER if finding is not None else 0
        height = max(piece.height for piece in slices)
        row = Image.new("RGB", (self.width, _MARGIN + header + height), BACKGROUND)
        left = (self.width - sum(piece.width for piece in slices) - _GAP * (len(slices) - 1)) // 2
        if finding is not None:
            self._draw_header(ImageDraw.Draw(row), left, finding)
        for piece in slices:
            row.paste(piece, (left, _MARGIN + header + (height - piece.height) // 2))
            left += piece.width + _GAP
        return row

    def _draw_header(self, draw: ImageDraw.ImageDraw, left: int, finding: Finding) -> None:
        middle = _MARGIN + _HEADER // 2 - 6
        top = middle - _chip_height(self.header_font) // 2
        end = _draw_chip(draw, (left, top), finding, self.header_font)
        scores = f"score {max(finding.scores):.2f}" if finding.scores else ""
        room = self.width - _MARGIN - end - 20 - self.font.getlength(scores)
        title = shorten(finding.text, room, self.header_font)
        draw.text((end + 8, middle), title, FOREGROUND, self.header_font, anchor="lm")
        draw.text((self.width - _MARGIN, middle), scores, MUTED, self.font, anchor="rm")

    def _slice(self, plane: Plane, index: int, subject: Finding | None) -> Image.Image:
        """Draw a slice; of several findings only the subject is filled, or all if there is none."""
        height, width = (max(1, round(mm * self.pixels_per_mm)) for mm in plane.extent)
        values = to_bytes(plane.cut(self.image.array, index), *self.range)
        pixels = values[0] if len(values) == 1 else np.moveaxis(values, 0, -1)
        picture = Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")
        picture = picture.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
        # Small findings lie on top of large ones.
        for finding in sorted(self.found, key=lambda finding: -finding.extent):
            fill = _FILL if subject in (None, finding) else 0.0
            picture = self._draw_mask(picture, plane, index, finding, fill)
        draw = ImageDraw.Draw(picture)
        for finding in self.found:
            self._draw_boxes(draw, plane, index, finding)
        for finding in self.found:
            self._draw_number(draw, plane, index, finding)
        self._draw_caption(draw, plane, index, picture.size)
        return picture

    def _draw_mask(
        self, picture: Image.Image, plane: Plane, index: int, finding: Finding, fill: float
    ) -> Image.Image:
        cut = _cut_mask(plane, index, finding)
        if cut is None:
            return picture
        # Nearest: the contour follows the voxels of the mask exactly.
        inside = np.asarray(
            Image.fromarray(np.ascontiguousarray(cut)).resize(picture.size, Image.Resampling.NEAREST)
        )
        opacity = np.where(inside & ~_eroded(inside, _CONTOUR), 1.0, inside * fill)
        alpha = Image.fromarray((opacity * 255).astype(np.uint8))
        return Image.composite(Image.new("RGB", picture.size, finding.colour), picture, alpha)

    def _draw_boxes(self, draw: ImageDraw.ImageDraw, plane: Plane, index: int, finding: Finding) -> None:
        for box in finding.boxes:
            if plane.meets(box, index):
                top, left, bottom, right = self._to_pixels(plane, plane.rectangle(box))
                frame = (left, top, max(left, right - 1), max(top, bottom - 1))
                draw.rectangle(tuple(np.add(frame, (-1, -1, 1, 1))), outline=(0, 0, 0))
                draw.rectangle(frame, outline=finding.colour, width=2)

    def _draw_number(self, draw: ImageDraw.ImageDraw, plane: Plane, index: int, finding: Finding) -> None:
        corners = [plane.rectangle(box)[:2] for box in finding.boxes if plane.meets(box, index)]
        if (cut := _cut_mask(plane, index, finding)) is not None:
            row = int(cut.any(axis=1).argmax())
            corners = [(row, int(cut[row].argmax()))]
        for corner in corners:
            top, left = self._to_pixels(plane, corner)
            size = _chip_height(self.font)
            _draw_chip(draw, (max(0, left), top - size if top >= size else top), finding, self.font)

    def _draw_caption(
        self, draw: ImageDraw.ImageDraw, plane: Plane, index: int, size: tuple[int, int]
    ) -> None:
        width, height = size

        def write(place: tuple[float, float], text: str, anchor: str) -> None:
            draw.text(place, text, FOREGROUND, self.font, anchor, stroke_width=2, stroke_fill=(0, 0, 0))

        for letter, place, anchor in zip(
            plane.letters or "",
            ((6, height / 2), (width - 6, height / 2), (width / 2, 5), (width / 2, height - 5)),
            ("lm", "rm", "ma", "md"),
            strict=False,
        ):
            write(place, letter, anchor)
        if plane.size[0] > 1:
            write((6, height - 5), f"{plane.name} {'zyx'[plane.axis]} {index}", "ld")

    def _to_pixels(self, plane: Plane, edges: Sequence[float]) -> list[int]:
        """Voxel edges (rows, columns, rows, columns) -> pixels."""
        steps = (plane.spacing[1], plane.spacing[2]) * 2
        return [round(edge * step * self.pixels_per_mm) for edge, step in zip(edges, steps, strict=False)]


def _cut_mask(plane: Plane, index: int, finding: Finding) -> np.ndarray | None:
    """Cut a finding's mask on a slice; None if the slice does not meet it."""
    if finding.mask is None or not plane.meets(np.asarray(finding.mask_box), index):
        return None
    cut = plane.cut(finding.mask, index)
    return cut if cut.any() else None


def _draw_chip(draw: ImageDraw.ImageDraw, place: tuple[int, int], finding: Finding, font: Font) -> int:
    """Draw a finding's number on its colour; returns the right edge."""
    left, top = place
    label = str(finding.number)
    right = left + round(font.getlength(label)) + 2 * _CHIP_PADDING
    draw.rectangle((left, top, right, top + _chip_height(font)), fill=finding.colour)
    middle = ((left + right) / 2, top + _chip_height(font) / 2)
    # Centred by the digits, which reach neither as high nor as low as letters.
    _, high, _, low = font.getbbox("0", anchor="ls")
    draw.text(
        (middle[0], middle[1] - (high + low) / 2), label, text_colour(finding.colour), font, anchor="ms"
    )
    return right


def _chip_height(font: Font) -> int:
    _, high, _, low = font.getbbox("0", anchor="ls")
    return round(low - high) + 2 * _CHIP_PADDING


def _eroded(mask: np.ndarray, steps: int) -> np.ndarray:
    """Take ``steps`` pixels off the border of a 2D mask; the edge of the image counts as outside."""
    for _ in range(steps):
        padded = np.pad(mask, 1)
        mask = (
            padded[1:-1, 1:-1] & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        )
    return mask
