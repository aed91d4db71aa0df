"""Box conventions, and conversions between them.

The public form of a box is its voxel corners ``(z0, y0, x0, z1, y1, x1)`` on the original grid, half-open: the box
contains the voxels ``z0 <= z < z1`` and so on, and a voxel ``i`` covers ``[i, i + 1)``. The model's own form is centre
and size ``(z, y, x, d, h, w)`` as fractions of the image that the model sees. All functions work on (..., 6).
"""

import numpy as np
import torch

from vividmed.errors import VividMedError
from vividmed.triples import Triple


def corners_to_fractions(boxes: torch.Tensor, size: Triple) -> torch.Tensor:
    """Convert voxel corners to centre and size as fractions of an image of ``size`` (D, H, W); float64."""
    extent = torch.tensor(size, dtype=torch.float64, device=boxes.device)
    low, high = boxes[..., :3].double() / extent, boxes[..., 3:].double() / extent
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def fractions_to_corners(boxes: torch.Tensor, size: Triple) -> torch.Tensor:
    """Invert :func:`corners_to_fractions`; float64, not rounded."""
    extent = torch.tensor(size, dtype=torch.float64, device=boxes.device)
    centre, half = boxes[..., :3].double() * extent, boxes[..., 3:].double() * extent / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def clip_boxes(boxes: torch.Tensor, size: Triple) -> torch.Tensor:
    """Clip corner boxes to an image of ``size`` (D, H, W)."""
    extent = torch.tensor(size, dtype=boxes.dtype, device=boxes.device).repeat(2)
    return torch.minimum(boxes.clamp(min=0), extent)


def round_boxes(boxes: torch.Tensor, size: Triple) -> torch.Tensor:
    """Round to whole voxels inside an image of ``size`` (D, H, W), at least one voxel wide; int64."""
    extent = torch.tensor(size, device=boxes.device)
    boxes = boxes.round().long()
    low = torch.minimum(boxes[..., :3].clamp(min=0), extent - 1)
    high = torch.maximum(torch.minimum(boxes[..., 3:], extent), low + 1)
    return torch.cat([low, high], dim=-1)


def boxes_to_mm(boxes: torch.Tensor, affine: np.ndarray) -> torch.Tensor:
    """Enclose corner boxes in millimetre boxes ``(x0, y0, z0, x1, y1, z1)`` in RAS+; float64.

    Args:
        boxes: (..., 6) voxel corners.
        affine: 4 x 4, voxel index (x, y, z) -> RAS+ mm of the voxel's centre.
    """
    matrix = torch.as_tensor(np.asarray(affine), dtype=torch.float64)
    low, high = boxes[..., :3].double(), boxes[..., 3:].double()
    pick = torch.cartesian_prod(*[torch.tensor([False, True])] * 3)
    corners = torch.where(pick, high[..., None, :], low[..., None, :])
    # Voxel i is centred at index i, and its lower face is at i - 1/2 for the affine.
    index = corners.flip(-1) - 0.5
    world = index @ matrix[:3, :3].T + matrix[:3, 3]
    return torch.cat([world.amin(dim=-2), world.amax(dim=-2)], dim=-1)


def mask_to_box(mask: torch.Tensor) -> torch.Tensor:
    """Find the smallest corner box around a mask (D, H, W); int64 (6,).

    Raises:
        VividMedError: the mask is empty.
    """
    voxels = mask.nonzero()
    if not len(voxels):
        raise VividMedError("an empty mask has no box; drop the target or list it as absent")
    return torch.cat([voxels.amin(dim=0), voxels.amax(dim=0) + 1])


def validate_boxes(boxes: torch.Tensor, size: Triple, *, name: str = "boxes") -> None:
    """Check that corner boxes (n, 6) have their corners in order and lie in an image of ``size`` (D, H, W).

    Args:
        name: name of the boxes in the error, such as the row and the field that they come from.

    Raises:
        VividMedError: a box is inverted, empty or outside the image; the message names the first one.
    """
    if boxes.ndim != 2 or boxes.shape[-1] != 6:
        raise VividMedError(
            f"{name}: shape {tuple(boxes.shape)} is not (n, 6); give (z0, y0, x0, z1, y1, x1) per box"
        )
    extent = torch.tensor(size, dtype=boxes.dtype)
    for index, box in enumerate(boxes):
        if not (box[:3] < box[3:]).all():
            raise VividMedError(
                f"{name}[{index}] = {box.tolist()} is inverted or empty; give (z0, y0, x0, z1, y1, x1) with z0 < z1, "
                "y0 < y1, x0 < x1"
            )
        if (box[:3] < 0).any() or (box[3:] > extent).any():
            raise VividMedError(
                f"{name}[{index}] = {box.tolist()} leaves the image of size {size}; give voxels of the original grid "
                "in the order (z, y, x)"
            )
