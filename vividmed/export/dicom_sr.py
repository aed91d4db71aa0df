"""A grounded report as a DICOM Structured Report (TID 1500) that refers to the segments of its phrases."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom as hd
from highdicom.seg import Segmentation
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from vividmed.export.dicom_objects import (
    CHARACTER_SET,
    MANUFACTURER,
    MODEL,
    built_from,
    mask_digests,
    object_uid,
    read_sources,
    save_dicom,
    series_number,
    stable_uid,
)
from vividmed.export.dicom_seg import build_dicom_seg
from vividmed.export.dicom_sr_groups import GroupWriter
from vividmed.export.file_names import SEGMENTATION, STRUCTURED_REPORT
from vividmed.export.findings import Finding, collect_findings
from vividmed.export.notice import NOTICE
from vividmed.processing.grounded_text import GroundedText
from vividmed.processing.medical_image import MedicalImage
from vividmed.version import __version__


@dataclass(frozen=True)
class DicomFiles:
    """The two files of a report."""

    segmentation: Path | None
    report: Path


def save_dicom_sr(
    image: MedicalImage, grounded: GroundedText, folder: str | Path, *, model: str = ""
) -> DicomFiles:
    """Write a report as ``report.dcm`` (SR), and its masks as ``segmentation.dcm`` (SEG), which it refers to.

    The text stands in the report whole, after a notice. Each phrase that was found is a measurement group with its code,
    its site and side, and its segment or, without a mask, its boxes as outlines on the source images. What was measured
    on the mask names the algorithm that measured it, apart from the text that the model wrote. Nothing is marked as
    verified.

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
    report, segmentation = build_dicom_sr(image, grounded, model=model)
    seg_path = None
    if segmentation is not None:
        seg_path = folder / SEGMENTATION
        save_dicom(segmentation, seg_path)
    save_dicom(report, folder / STRUCTURED_REPORT)
    return DicomFiles(seg_path, folder / STRUCTURED_REPORT)


def build_dicom_sr(
    image: MedicalImage, grounded: GroundedText, *, model: str = "", identity: str | None = None
) -> tuple[hd.sr.Comprehensive3DSR, Segmentation | None]:
    """The report, and the segmentation that it refers to if there are masks; see :func:`save_dicom_sr`.

    Args:
        image: read from DICOM.
        grounded: text, phrases, masks and boxes on the image's grid.
        model: name of the model.
        identity: see :func:`vividmed.export.dicom_objects.object_uid`.
    """
    sources = read_sources(image)
    segmentation, segments = (
        build_dicom_seg(image, grounded, model=model, identity=identity)
        if any(phrase.mask is not None and phrase.mask.any() for phrase in grounded.phrases)
        else (None, [])
    )
    with built_from(image):
        writer = GroupWriter(image, sources, segmentation, model)
        groups = writer.groups(collect_findings(image, grounded), segments)
        return _report(grounded, sources, segmentation, groups, segments, model, identity), segmentation


def _report(
    grounded: GroundedText,
    sources: list[Dataset],
    segmentation: Segmentation | None,
    groups: list[Any],
    segments: list[Finding],
    model: str,
    identity: str | None,
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
        imaging_measurements=groups,
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
        series_instance_uid=object_uid("SR series", series, model=model, identity=identity),
        series_number=series_number(sources, 1),
        sop_instance_uid=object_uid(
            "SR",
            series,
            model=model,
            identity=identity,
            content=(grounded.text, *mask_digests(segments)),
        ),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=True,
        is_final=False,
        is_verified=False,
        series_description="VividMed report (research only)",
        specific_character_set=CHARACTER_SET,
    )
