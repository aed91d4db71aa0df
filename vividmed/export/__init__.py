"""Layer 3: grounded reports as pictures, interactive pages and NIfTI files."""

from vividmed.export.html import html
from vividmed.export.nifti import save_masks
from vividmed.export.overlay import overlay

__all__ = ["html", "overlay", "save_masks"]
