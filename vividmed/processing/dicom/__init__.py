"""DICOM files and series to :class:`~vividmed.processing.medical_image.MedicalImage`; no patient field is kept."""

from vividmed.processing.dicom.contours import contour_names, read_contours
from vividmed.processing.dicom.files import is_dicom, read_dicom_file, read_dicom_series

__all__ = ["contour_names", "is_dicom", "read_contours", "read_dicom_file", "read_dicom_series"]
