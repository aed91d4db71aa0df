"""The PDF document of a report as a DICOM object of the study that it is about."""

from datetime import datetime
from pathlib import Path

from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian

from vividmed.export.dicom_objects import (
    CHARACTER_SET,
    MANUFACTURER,
    MODEL,
    mask_digests,
    object_uid,
    read_sources,
    save_dicom,
    series_number,
)
from vividmed.export.findings import collect_findings
from vividmed.export.pdf import build_pdf
from vividmed.processing.grounded_text import GroundedText
from vividmed.processing.medical_image import MedicalImage
from vividmed.version import __version__

_PATIENT_AND_STUDY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)


def save_dicom_pdf(image: MedicalImage, grounded: GroundedText, path: str | Path, *, model: str = "") -> Path:
    """Write a report's PDF as an Encapsulated PDF object.

    Args:
        image: read from DICOM.
        grounded: text, phrases, masks and boxes on the image's grid.
        path: ``.dcm`` file to write; folders are made.
        model: name of the model.

    Raises:
        VividMedError: the image was not read from DICOM, or the file cannot be written.
    """
    path = Path(path)
    save_dicom(build_dicom_pdf(image, grounded, model=model), path)
    return path


def build_dicom_pdf(
    image: MedicalImage, grounded: GroundedText, *, model: str = "", identity: str | None = None
) -> Dataset:
    """The object; see :func:`save_dicom_pdf` and :func:`vividmed.export.dicom_objects.object_uid`."""
    sources = read_sources(image)
    first, series = sources[0], str(sources[0].SeriesInstanceUID)
    digests = mask_digests(collect_findings(image, grounded))
    now = datetime.now()
    dataset = Dataset()
    for keyword in _PATIENT_AND_STUDY:
        setattr(dataset, keyword, first.get(keyword, ""))
    dataset.SpecificCharacterSet = CHARACTER_SET
    dataset.SOPClassUID = EncapsulatedPDFStorage
    dataset.SOPInstanceUID = object_uid(
        "PDF", series, model=model, identity=identity, content=(grounded.text, *digests)
    )
    dataset.Modality = "DOC"
    dataset.SeriesInstanceUID = object_uid("PDF series", series, model=model, identity=identity)
    dataset.SeriesNumber = series_number(sources, 2)
    dataset.SeriesDescription = "VividMed document (research only)"
    dataset.InstanceNumber = 1
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = MODEL
    dataset.DeviceSerialNumber = "0"
    dataset.SoftwareVersions = __version__
    dataset.ConversionType = "WSD"
    dataset.ContentDate, dataset.ContentTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    dataset.AcquisitionDateTime = ""
    # Pixels of the image are in the document, with whatever is burnt into them.
    dataset.BurnedInAnnotation = first.get("BurnedInAnnotation", None) or "YES"
    dataset.DocumentTitle = "VividMed report (research only)"
    dataset.ConceptNameCodeSequence = [CodedConcept("18748-4", "LN", "Diagnostic imaging report")]
    references = []
    for source in sources:
        reference = Dataset()
        reference.ReferencedSOPClassUID = source.SOPClassUID
        reference.ReferencedSOPInstanceUID = source.SOPInstanceUID
        references.append(reference)
    dataset.SourceInstanceSequence = references
    document = build_pdf(image, grounded, model=model)
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    dataset.EncapsulatedDocumentLength = len(document)
    dataset.EncapsulatedDocument = document + b"\0" * (len(document) % 2)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset
