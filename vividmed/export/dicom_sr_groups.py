"""Measurement groups of a structured report (TID 1410 and 1411): one per phrase that was found."""

from collections.abc import Sequence
from typing import Any

import highdicom as hd
import numpy as np
from highdicom.seg import Segmentation
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from vividmed.export.dicom_objects import code_phrase, stable_uid
from vividmed.export.findings import Finding
from vividmed.export.measurements import MEASURED_BY, Measurements, measure
from vividmed.processing.medical_image import MedicalImage
from vividmed.version import __version__

_UNITS = {"mm": "millimeter", "mL": "milliliter", "[hnsf'U]": "Hounsfield unit"}


class GroupWriter:
    """Writes the groups of one report.

    Args:
        image: as read.
        sources: headers of its files, in the order of its slices.
        segmentation: the segments that groups refer to; None without masks.
        model: name of the model.
    """

    def __init__(
        self, image: MedicalImage, sources: Sequence[Dataset], segmentation: Segmentation | None, model: str
    ):
        self.image = image
        self.sources = sources
        self.segmentation = segmentation
        self.model = model
        self.series = str(sources[0].SeriesInstanceUID)

    def groups(self, findings: Sequence[Finding], segments: Sequence[Finding]) -> list[Any]:
        """A group per finding; if nothing was found one for the text, since the template asks for a group.

        Args:
            findings: of the report.
            segments: findings of the segments, in their order.
        """
        numbers = {finding.number: number for number, finding in enumerate(segments, start=1)}
        found = [finding for finding in findings if finding.found]
        if not found:
            tracking = hd.sr.TrackingIdentifier(
                uid=stable_uid("text", self.series, self.model), identifier="report text"
            )
            return [
                hd.sr.MeasurementsAndQualitativeEvaluations(
                    tracking_identifier=tracking, finding_type=codes.DCM.Finding
                )
            ]
        return [self._group(finding, numbers.get(finding.number)) for finding in found]

    def _group(self, finding: Finding, segment: int | None) -> Any:
        coded = code_phrase(finding.text)
        site = coded.site or (coded.concept if coded.category == codes.SCT.AnatomicalStructure else None)
        sides = []
        if site is None and coded.side is not None:
            sides = [hd.sr.QualitativeEvaluation(name=codes.SCT.Laterality, value=coded.side)]
        number = finding.number if segment is None else segment
        options: dict[str, Any] = {
            "tracking_identifier": hd.sr.TrackingIdentifier(
                uid=stable_uid("segment", self.series, self.model, str(number), finding.text),
                identifier=" ".join(finding.text.split())[:64],
            ),
            "finding_type": coded.concept,
            "finding_category": coded.category,
            "finding_sites": [hd.sr.FindingSite(site, laterality=coded.side)] if site is not None else None,
            "qualitative_evaluations": sides or None,
        }
        if segment is not None and self.segmentation is not None:
            return self._of_segment(finding, segment, options)
        if self.image.size[0] == 1 and len(finding.boxes) == 1:
            return hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
                referenced_region=self._outlines(finding.boxes)[0], **options
            )
        return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            referenced_regions=self._outlines(finding.boxes), **options
        )

    def _of_segment(self, finding: Finding, segment: int, options: dict[str, Any]) -> Any:
        reference: dict[str, Any] = {
            "sop_class_uid": self.segmentation.SOPClassUID,  # type: ignore[union-attr]
            "sop_instance_uid": self.segmentation.SOPInstanceUID,  # type: ignore[union-attr]
            "segment_number": segment,
        }
        series = hd.sr.SourceSeriesForSegmentation(self.series)
        measured = None if finding.mask is None else measure(self.image, finding.mask)
        return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            referenced_segment=hd.sr.ReferencedSegment(source_series=series, **reference),
            measurements=_measurements(measured),
            **options,
        )

    def _outlines(self, boxes: np.ndarray) -> list[hd.sr.ImageRegion]:
        """Boxes (n, 6) as closed lines on each slice that they reach into; pixel corners are whole numbers."""
        outlines = []
        for z0, y0, x0, z1, y1, x1 in boxes:
            points = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]])
            last = min(int(np.ceil(z1)), self.image.size[0])
            for index in range(int(z0), max(last, int(z0) + 1)):
                multi_frame = len(self.sources) == 1 and self.image.size[0] > 1
                source = self.sources[0 if multi_frame else index]
                outlines.append(
                    hd.sr.ImageRegion(
                        graphic_type=hd.sr.GraphicTypeValues.POLYLINE,
                        graphic_data=points,
                        source_image=hd.sr.SourceImageForRegion(
                            source.SOPClassUID, source.SOPInstanceUID, [index + 1] if multi_frame else None
                        ),
                    )
                )
        return outlines


def _measurements(measured: Measurements | None) -> list[hd.sr.Measurement]:
    if measured is None:
        return []
    rows = [
        (codes.SCT.Volume, round(measured.volume_ml, 3), "mL", None),
        (codes.SCT.LongAxis, round(measured.longest_diameter_mm, 3), "mm", None),
        (codes.SCT.ShortAxis, round(measured.short_diameter_mm, 3), "mm", None),
    ]
    if measured.mean_hu is not None:
        mean = (codes.DCM.AttenuationCoefficient, round(measured.mean_hu, 2), "[hnsf'U]", codes.SCT.Mean)
        rows.append(mean)
    algorithm = hd.sr.AlgorithmIdentification(name=MEASURED_BY, version=__version__)
    return [
        hd.sr.Measurement(
            name=name,
            value=value,
            unit=CodedConcept(unit, "UCUM", _UNITS[unit]),
            derivation=derivation,
            algorithm_id=algorithm,
        )
        for name, value, unit, derivation in rows
    ]
