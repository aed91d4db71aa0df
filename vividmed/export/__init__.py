"""Layer 3: writes grounded reports as PNG images, interactive pages, NIfTI files and DICOM objects."""

from vividmed.export.html import html
from vividmed.export.nifti import save_masks
from vividmed.export.overlay import overlay

__all__ = ["html", "overlay", "save_masks"]
