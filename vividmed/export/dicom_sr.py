"""A grounded report as a DICOM Structured Report (TID 1500) that refers to the segments of its phrases."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom as hd
from highdicom.seg import Segmentation
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from vividmed.export.dicom_objects import (
    MANUFACTURER,
    MODEL,
    code_phrase,
    mask_digests,
    read_sources,
    save_dicom,
    series_number,
    stable_uid,
)
from vividmed.export.dicom_seg import build_dicom_seg
from vividmed.export.findings import Finding
from vividmed.export.measurements import Measurements, measure
from vividmed.export.notice import NOTICE
from vividmed.processing.grounded_text import GroundedText
from vividmed.processing.medical_image import MedicalImage
from vividmed.version import __version__

_UNITS = {"mm": "millimeter", "mL": "milliliter", "[hnsf'U]": "Hounsfield unit"}


@dataclass(frozen=True)
class DicomFiles:
    """The two files of a report."""

    segmentation: Path | None
    report: Path


def save_dicom_sr(
    image: MedicalImage, grounded: GroundedText, folder: str | Path, *, model: str = ""
) -> DicomFiles:
    """Write a report as ``report.dcm`` (SR), and its masks as ``segmentation.dcm`` (SEG), which it refers to.

    The text stands in the report whole, after a notice. Each phrase with a mask is a measurement group with its code,
    its segment, and what was measured on the mask. Nothing is marked as verified.

    Args:
        image: a volume read from DICOM.
        grounded: text, phrases and masks on the image's grid.
        folder: where to write; it is made.
        model: name of the model.

    Returns:
        The files; without masks there is no segmentation.

    Raises:
        VividMedError: the image was not read from DICOM, or a file cannot be written.
    """
    folder = Path(folder)
    sources = read_sources(image)
    segmentation, findings = (
        build_dicom_seg(image, grounded, model=model)
        if any(phrase.mask is not None and phrase.mask.any() for phrase in grounded.phrases)
        else (None, [])
    )
    report = _report(image, grounded, sources, segmentation, findings, model)
    seg_path = None
    if segmentation is not None:
        seg_path = folder / "segmentation.dcm"
        save_dicom(segmentation, seg_path)
    save_dicom(report, folder / "report.dcm")
    return DicomFiles(seg_path, folder / "report.dcm")


def _report(
    image: MedicalImage,
    grounded: GroundedText,
    sources: list[Dataset],
    segmentation: Segmentation | None,
    findings: list[Finding],
    model: str,
) -> hd.sr.Comprehensive3DSR:
    series = str(sources[0].SeriesInstanceUID)
    device = hd.sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=stable_uid("device", MODEL, __version__, model),
            name=MODEL,
            manufacturer_name=MANUFACTURER,
            model_name=MODEL,
        ),
    )
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=device),
        procedure_reported=codes.SCT.ImagingProcedure,
        title=codes.DCM.ImagingMeasurementReport,
        imaging_measurements=_groups(image, findings, segmentation, sources, model),
    )
    comment = hd.sr.TextContentItem(
        name=codes.DCM.Comment,
        value=f"{NOTICE}\n{grounded.text}",
        relationship_type=hd.sr.RelationshipTypeValues.CONTAINS,
    )
    content[0].ContentSequence.append(comment)
    evidence: list[Dataset] = [*sources, *([] if segmentation is None else [segmentation])]
    return hd.sr.Comprehensive3DSR(
        evidence=evidence,
        content=content[0],
        series_instance_uid=stable_uid("SR series", series, model),
        series_number=series_number(sources, 1),
        sop_instance_uid=stable_uid("SR", series, model, grounded.text, *mask_digests(findings)),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=True,
        is_final=False,
        is_verified=False,
        series_description="VividMed report (research only)",
    )


def _groups(
    image: MedicalImage,
    findings: list[Finding],
    segmentation: Segmentation | None,
    sources: list[Dataset],
    model: str,
) -> list[Any]:
    """A group per phrase with a mask; without any, one for the text, since the template asks for a group."""
    if segmentation is None:
        series = str(sources[0].SeriesInstanceUID)
        tracking = hd.sr.TrackingIdentifier(uid=stable_uid("text", series, model), identifier="report text")
        return [
            hd.sr.MeasurementsAndQualitativeEvaluations(
                tracking_identifier=tracking, finding_type=codes.DCM.Finding
            )
        ]
    return [
        _group(image, finding, number, segmentation, sources, model)
        for number, finding in enumerate(findings, start=1)
    ]


def _group(
    image: MedicalImage,
    finding: Finding,
    number: int,
    segmentation: Segmentation,
    sources: list[Dataset],
    model: str,
) -> hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations:
    coded = code_phrase(finding.text)
    series = str(sources[0].SeriesInstanceUID)
    measured = None if finding.mask is None else measure(image, finding.mask)
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(
            uid=stable_uid("segment", series, model, str(number), finding.text),
            identifier=" ".join(finding.text.split())[:64],
        ),
        referenced_segment=hd.sr.ReferencedSegment(
            sop_class_uid=segmentation.SOPClassUID,
            sop_instance_uid=segmentation.SOPInstanceUID,
            segment_number=number,
            source_series=hd.sr.SourceSeriesForSegmentation(series),
        ),
        finding_type=coded.concept,
        finding_category=coded.category,
        measurements=_measurements(measured),
    )


def _measurements(measured: Measurements | None) -> list[hd.sr.Measurement]:
    if measured is None:
        return []
    rows = [
        (codes.SCT.Volume, measured.volume_ml, "mL"),
        (codes.SCT.LongAxis, measured.longest_diameter_mm, "mm"),
        (codes.SCT.ShortAxis, measured.short_diameter_mm, "mm"),
    ]
    found = [
        hd.sr.Measurement(name=name, value=round(value, 3), unit=CodedConcept(unit, "UCUM", _UNITS[unit]))
        for name, value, unit in rows
    ]
    if measured.mean_hu is not None:
        found.append(
            hd.sr.Measurement(
                name=codes.DCM.AttenuationCoefficient,
                value=round(measured.mean_hu, 2),
                unit=CodedConcept("[hnsf'U]", "UCUM", _UNITS["[hnsf'U]"]),
                derivation=codes.SCT.Mean,
            )
        )
    return found
