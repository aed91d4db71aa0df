"""Names of the files that a result is written as."""

OVERLAY = "overlay.png"
PAGE = "report.html"
DOCUMENT = "report.pdf"
SEGMENTATION = "segmentation.dcm"
STRUCTURED_REPORT = "report.dcm"
ENCAPSULATED_DOCUMENT = "document.dcm"

MASK_FOLDER = "masks"
MASK_INDEX = "grounding.json"
LABELS = "labels.nii.gz"
MASK = "mask_{number:02d}.nii.gz"
MASK_PATTERN = "mask_*.nii.gz"
