"""The phrases of a grounded text, checked against their image and ready to be drawn or written."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from vividmed.data.masks import Box, bounding_box
from vividmed.errors import VividMedError
from vividmed.export.palette import Colour, finding_colour
from vividmed.processing.boxes import validate_boxes
from vividmed.processing.grounded_text import GroundedText, Phrase
from vividmed.processing.medical_image import MedicalImage
from vividmed.triples import Triple


@dataclass(frozen=True, eq=False)
class Finding:
    """A phrase and where it is in the image.

    Attributes:
        number: place of the phrase in the text, counted from 1; the same in images, pages and label maps.
        text: the phrase.
        start: first character in the text.
        end: one past the last character.
        mask: (D, H, W) bool on the image's grid; None without a mask or if nothing is inside.
        mask_box: smallest box (z0, y0, x0, z1, y1, x1) around the mask.
        boxes: (n, 6) float64 voxel corners (z0, y0, x0, z1, y1, x1), half-open, on the image's grid.
        scores: one score per box; empty if the phrase came without scores.
        extent: voxels of the mask, else of the boxes together; small findings are drawn over large ones.
        colour: sRGB.
    """

    number: int
    text: str
    start: int
    end: int
    mask: np.ndarray | None
    mask_box: Box | None
    boxes: np.ndarray
    scores: tuple[float, ...]
    extent: float
    colour: Colour

    @property
    def found(self) -> bool:
        """Whether there is anything to draw."""
        return self.mask is not None or len(self.boxes) > 0

    def slices(self) -> Triple:
        """Choose where to cut: the slice along each array axis (z, y, x) that shows most of the mask.

        Without a mask, the slices through the middle of the best box. Every slice meets the finding, which slices
        through the centre of a mask in several parts need not.
        """
        if self.mask is None or self.mask_box is None:
            best = self.boxes[int(np.argmax(self.scores)) if self.scores else 0]
            z, y, x = (int(middle) for middle in (best[:3] + best[3:]) / 2)
            return z, y, x
        inside = crop(self.mask, self.mask_box)
        areas = (np.count_nonzero(inside, axis=axes) for axes in ((1, 2), (0, 2), (0, 1)))
        z, y, x = (low + int(area.argmax()) for low, area in zip(self.mask_box[:3], areas, strict=True))
        return z, y, x


def crop(volume: np.ndarray, box: Sequence[int]) -> np.ndarray:
    """Cut out the part of a volume (D, H, W) inside a box (z0, y0, x0, z1, y1, x1)."""
    z0, y0, x0, z1, y1, x1 = box
    return volume[z0:z1, y0:y1, x0:x1]


def collect_findings(image: MedicalImage, grounded: GroundedText) -> list[Finding]:
    """Check the phrases of a text against its image.

    Args:
        image: the image on whose original grid the masks and boxes are.
        grounded: the text and its phrases.

    Returns:
        One finding per phrase, in the order of the phrases.

    Raises:
        VividMedError: a span leaves the text or overlaps another, a mask has another grid or is not boolean, a box
            leaves the image or is inverted, or there are not as many scores as boxes.
    """
    findings = [
        _finding(image, grounded, number, phrase) for number, phrase in enumerate(grounded.phrases, 1)
    ]
    ordered = sorted(findings, key=lambda finding: finding.start)
    for earlier, later in pairwise(ordered):
        if later.start < earlier.end:
            raise VividMedError(
                f"phrases {earlier.number} ({earlier.text!r}) and {later.number} ({later.text!r}) overlap in the text; "
                "give each character to one phrase"
            )
    return findings


def split_text(text: str, findings: list[Finding]) -> list[tuple[str, Finding | None]]:
    """Cut a text at its phrases: pieces in order, with the finding that a piece names or None."""
    pieces: list[tuple[str, Finding | None]] = []
    cursor = 0
    for finding in sorted(findings, key=lambda finding: finding.start):
        pieces += [(text[cursor : finding.start], None), (text[finding.start : finding.end], finding)]
        cursor = finding.end
    pieces.append((text[cursor:], None))
    return [(piece, finding) for piece, finding in pieces if piece]


def _finding(image: MedicalImage, grounded: GroundedText, number: int, phrase: Phrase) -> Finding:
    name = f"phrase {number} ({phrase.text!r})"
    if not 0 <= phrase.start < phrase.end <= len(grounded.text):
        raise VividMedError(
            f"{name}: span ({phrase.start}, {phrase.end}) is empty or leaves the text of {len(grounded.text)} "
            "characters; give start and one past the end"
        )
    boxes = np.asarray(phrase.boxes, dtype=np.float64)
    validate_boxes(torch.from_numpy(boxes), image.size, name=f"{name}: boxes")
    scores = np.asarray(phrase.scores, dtype=np.float64)
    if scores.shape not in ((0,), (len(boxes),)) or not np.isfinite(scores).all():
        raise VividMedError(
            f"{name}: scores {scores.tolist()} for {len(boxes)} boxes; give one finite score per box, or none"
        )
    mask = _mask(phrase.mask, image, name)
    mask_box = None if mask is None else bounding_box(mask)
    if mask is None or mask_box is None:
        mask, extent = None, float((boxes[:, 3:] - boxes[:, :3]).prod(axis=1).sum())
    else:
        extent = float(np.count_nonzero(crop(mask, mask_box)))
    return Finding(
        number=number,
        text=phrase.text,
        start=phrase.start,
        end=phrase.end,
        mask=mask,
        mask_box=mask_box,
        boxes=boxes,
        scores=tuple(scores.tolist()),
        extent=extent,
        colour=finding_colour(number),
    )


def _mask(mask: np.ndarray | None, image: MedicalImage, name: str) -> np.ndarray | None:
    if mask is None:
        return None
    mask = np.asarray(mask)
    if mask.shape != image.size:
        raise VividMedError(
            f"{name}: mask of shape {mask.shape} is not on the grid of its image, {image.size}; give the mask as "
            "(z, y, x) on the original grid of the image"
        )
    if mask.dtype != bool:
        raise VividMedError(f"{name}: mask of type {mask.dtype} is not boolean; compare it with a threshold")
    return mask
