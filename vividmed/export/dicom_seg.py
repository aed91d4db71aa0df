"""Masks of phrases as a DICOM Segmentation object of the series they were drawn on."""

from pathlib import Path

import highdicom as hd
import numpy as np
from highdicom.seg import (
    SegmentAlgorithmTypeValues,
    Segmentation,
    SegmentationTypeValues,
    SegmentDescription,
)
from pydicom.sr.codedict import codes

from vividmed.errors import VividMedError
from vividmed.export.dicom_objects import (
    CHARACTER_SET,
    MANUFACTURER,
    MODEL,
    built_from,
    code_phrase,
    mask_digests,
    object_uid,
    read_sources,
    save_dicom,
    series_number,
    stable_uid,
)
from vividmed.export.findings import Finding, collect_findings
from vividmed.processing.grounded_text import GroundedText
from vividmed.processing.medical_image import MedicalImage
from vividmed.version import __version__


def save_dicom_seg(image: MedicalImage, grounded: GroundedText, path: str | Path, *, model: str = "") -> Path:
    """Write the masks of a grounded text as one DICOM SEG file, a segment per phrase.

    Segments are coded in SNOMED CT where the phrase names a target with a code, else in a private scheme; sides are
    modifiers. Identifiers depend on the series, the model and the text, so the same result is the same object. Only what
    the standard asks for of patient and study is copied from the source.

    Args:
        image: a volume read from DICOM.
        grounded: text, phrases and masks on the image's grid.
        path: ``.dcm`` file to write; folders are made.
        model: name of the model.

    Returns:
        The file.

    Raises:
        VividMedError: the image was not read from DICOM, no phrase has a mask, or the file cannot be written.
    """
    path = Path(path)
    segmentation, _ = build_dicom_seg(image, grounded, model=model)
    save_dicom(segmentation, path)
    return path


def build_dicom_seg(
    image: MedicalImage, grounded: GroundedText, *, model: str = "", identity: str | None = None
) -> tuple[Segmentation, list[Finding]]:
    """The object and the findings of its segments, in order; see :func:`save_dicom_seg` and :func:`object_uid`."""
    findings = [finding for finding in collect_findings(image, grounded) if finding.mask is not None]
    if not findings:
        raise VividMedError(
            f"{image.source}: no phrase has a mask, so there is nothing to write as DICOM SEG"
        )
    sources = read_sources(image)
    series = str(sources[0].SeriesInstanceUID)
    masks = np.stack([finding.mask for finding in findings if finding.mask is not None], axis=-1)
    algorithm = hd.AlgorithmIdentificationSequence(
        name=MODEL, family=codes.DCM.ArtificialIntelligence, version=__version__
    )
    with built_from(image):
        segmentation = Segmentation(
            source_images=sources,
            pixel_array=masks.astype(np.uint8),
            segmentation_type=SegmentationTypeValues.BINARY,
            segment_descriptions=[
                _describe(finding, number, algorithm, series, model)
                for number, finding in enumerate(findings, start=1)
            ],
            series_instance_uid=object_uid("SEG series", series, model=model, identity=identity),
            series_number=series_number(sources, 0),
            sop_instance_uid=object_uid(
                "SEG",
                series,
                model=model,
                identity=identity,
                content=(grounded.text, *mask_digests(findings)),
            ),
            instance_number=1,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=MODEL,
            software_versions=__version__,
            device_serial_number="0",
            content_label="VIVIDMED",
            content_description="Phrases of a report",
            series_description="VividMed masks (research only)",
            specific_character_set=CHARACTER_SET,
        )
    if not image.oriented:
        # Without a place in the patient, the standard asks for the directions, of which a source may say nothing.
        segmentation.PatientOrientation = sources[0].get("PatientOrientation")
    return segmentation, findings


def _describe(
    finding: Finding, number: int, algorithm: hd.AlgorithmIdentificationSequence, series: str, model: str
) -> SegmentDescription:
    coded = code_phrase(finding.text)
    description = SegmentDescription(
        segment_number=number,
        segment_label=" ".join(finding.text.split())[:64],
        segmented_property_category=coded.category,
        segmented_property_type=coded.concept,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        tracking_uid=stable_uid("segment", series, model, str(number), finding.text),
        display_color=hd.color.CIELabColor.from_rgb(*finding.colour),
        tracking_id=f"phrase {finding.number}",
    )
    if coded.side is not None:
        item = hd.sr.CodedConcept.from_code(coded.side)
        description.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [item]
    if coded.site is not None:
        description.AnatomicRegionSequence = [coded.site]
    return description
