"""Parts shared by DICOM SEG and SR: the source series, codes of phrases, stable identifiers."""

import hashlib
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from vividmed.data.coding import target_codes
from vividmed.data.pseudo_labels.tagging import Tagger
from vividmed.data.taxonomy import Taxonomy
from vividmed.errors import VividMedError
from vividmed.export.findings import Finding
from vividmed.files import write_atomically
from vividmed.processing.file_errors import first_line
from vividmed.processing.medical_image import MedicalImage

MANUFACTURER = "vividmed"
MODEL = "VividMed"
CHARACTER_SET = "ISO_IR 192"
"""UTF-8, because a report may have characters that the source's character set lacks."""
PRIVATE_SCHEME = "99VIVIDMED"
"""Coding scheme of targets that have no code of SNOMED CT."""
_UID_ROOT = "2.25."

# Attributes of the patient and the study that the standard asks for; sources may lack them.
_NEEDED = {
    "PatientID": "",
    "PatientName": "",
    "PatientBirthDate": "",
    "PatientSex": "",
    "StudyID": "",
    "StudyDate": "",
    "StudyTime": "",
    "AccessionNumber": "",
    "ReferringPhysicianName": "",
}


@dataclass(frozen=True)
class PhraseCodes:
    """How a phrase is coded.

    Attributes:
        category: anatomical structure or morphological abnormality.
        concept: the target's, or a private one of the phrase itself.
        side: left or right, where the phrase has one and the concept does not say it.
        site: the structure that a finding is in, where the phrase names one with a code.
    """

    category: Any
    concept: CodedConcept
    side: Any | None
    site: CodedConcept | None = None


def read_sources(image: MedicalImage) -> list[Dataset]:
    """Headers of the DICOM files that an image was read from, in the order of its slices.

    Raises:
        VividMedError: the image was not read from DICOM, or has no place in the patient.
    """
    if not image.files:
        raise VividMedError(
            f"{image.source}: DICOM objects refer to the series they are about, but this image was not read from DICOM; "
            "give the DICOM series, or leave out the DICOM formats"
        )
    if not image.oriented and image.size[0] > 1:
        raise VividMedError(
            f"{image.source}: DICOM objects need slices with positions; leave out the DICOM formats"
        )
    sources: list[Dataset] = [
        pydicom.dcmread(path, stop_before_pixels=True, force=True) for path in image.files
    ]
    for source in sources:
        for keyword, default in _NEEDED.items():
            if keyword not in source:
                setattr(source, keyword, default)
        if image.oriented and not source.get("SliceThickness"):
            source.SliceThickness = round(float(image.spacing[0]), 6)
    _fill_identifiers(sources, image.source, oriented=image.oriented)
    return sources


@contextmanager
def built_from(image: MedicalImage) -> Iterator[None]:
    """Turn what an object cannot be built from, such as headers without a needed element, into one error.

    Raises:
        VividMedError: names the image.
    """
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise VividMedError(
            f"{image.source}: the headers of its files do not suffice for DICOM objects ({first_line(error)}); export "
            "the series again, or leave out the DICOM formats"
        ) from error


def _fill_identifiers(sources: Sequence[Dataset], name: str, *, oriented: bool) -> None:
    """Fill identifiers that were emptied for anonymity: those of files from their heads, the others by new ones.

    Raises:
        VividMedError: a file does not say which object it is.
    """
    for source in sources:
        meta = getattr(source, "file_meta", None) or Dataset()
        source.SOPClassUID = source.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID", "")
        source.SOPInstanceUID = source.get("SOPInstanceUID") or meta.get("MediaStorageSOPInstanceUID", "")
        if not source.SOPClassUID or not source.SOPInstanceUID:
            raise VividMedError(
                f"{name}: a file has no SOPClassUID or SOPInstanceUID, which DICOM objects refer to; export the series "
                "again, or leave out the DICOM formats"
            )
    first = str(sources[0].SOPInstanceUID)
    shared = ("StudyInstanceUID", "SeriesInstanceUID", *(("FrameOfReferenceUID",) if oriented else ()))
    for keyword in shared:
        uid = next((source.get(keyword) for source in sources if source.get(keyword)), None)
        for source in sources:
            setattr(source, keyword, source.get(keyword) or uid or stable_uid(keyword, first))


def code_phrase(text: str, tagger: Tagger | None = None) -> PhraseCodes:
    """Codes of a phrase, by the target that the rule tagger finds in it."""
    tagger = tagger or default_tagger()
    mentions = tagger(text)
    if not mentions:
        return PhraseCodes(codes.SCT.MorphologicallyAbnormalStructure, _private(text), _side(text))
    # The last mention is the head of an English noun phrase; a finding goes before the structure it is in.
    findings = [one for one in mentions if tagger.taxonomy[one.target].category == "anomaly"]
    target = tagger.taxonomy[(findings or mentions)[-1].target]
    category = (
        codes.SCT.MorphologicallyAbnormalStructure
        if target.category == "anomaly"
        else codes.SCT.AnatomicalStructure
    )
    code = target_codes().get(target.name)
    if code is None:
        return PhraseCodes(category, _private(target.name), _side(text))
    concept = CodedConcept(code.value, "SCT", code.meaning[:64])
    says_side = any(side in code.meaning.lower() for side in ("left", "right"))
    side = None if says_side else _side(code.side or text)
    sites = [] if target.category != "anomaly" else [one.target for one in mentions if one not in findings]
    found = (target_codes().get(name) for name in reversed(sites))
    site = next((CodedConcept(one.value, "SCT", one.meaning[:64]) for one in found if one is not None), None)
    return PhraseCodes(category, concept, side, site)


def stable_uid(*parts: str) -> str:
    """Identifier that is a function of what the object is about, so that the same result is stored once.

    Args:
        *parts: such as the series, the model and the text.
    """
    digest = hashlib.sha256("\n".join(parts).encode()).digest()
    # As a UUID of version 8 (RFC 9562), which ITU-T X.667 maps to an identifier below 2.25.
    number = int.from_bytes(digest[:16], "big")
    number = number & ~(0xF << 76) | (8 << 76)
    number = number & ~(3 << 62) | (2 << 62)
    return f"{_UID_ROOT}{number}"


def object_uid(
    kind: str, series: str, *, model: str = "", identity: str | None = None, content: Sequence[str] = ()
) -> str:
    """Identifier of an object about a series.

    Args:
        kind: such as ``"SEG"``.
        series: SeriesInstanceUID of the source.
        model: name of the model.
        identity: what the object depends on besides the series, so that it can be known before the object is made; by
            default the model's name and ``content``.
        content: text and digests of masks.
    """
    if identity is not None:
        return stable_uid(kind, series, identity)
    return stable_uid(kind, series, model, *content)


def series_number(sources: Sequence[Dataset], offset: int) -> int:
    """Number for a derived series, beside those of the scanner."""
    return 9000 + offset + int(sources[0].get("SeriesNumber") or 0) % 1000


def save_dicom(dataset: Dataset, path: Path) -> None:
    """Write a DICOM file that is there whole or not at all.

    Raises:
        VividMedError: it cannot be written.
    """
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    write_atomically(path, stream.getvalue())


@cache
def default_tagger() -> Tagger:
    """The tagger of the package's taxonomy, made once."""
    return Tagger(Taxonomy.load())


def mask_digests(findings: Sequence[Finding]) -> list[str]:
    """A digest of each finding's mask, for :func:`stable_uid`: other voxels are another object."""
    return [
        f"{finding.number} {hashlib.sha256(np.packbits(finding.mask).tobytes()).hexdigest()}"
        for finding in findings
        if finding.mask is not None
    ]


def _private(text: str) -> CodedConcept:
    value = hashlib.sha256(text.lower().encode()).hexdigest()[:12].upper()
    return CodedConcept(value, PRIVATE_SCHEME, " ".join(text.split())[:64] or "finding")


def _side(text: str) -> Any | None:
    words = text.lower().split()
    if "left" in words:
        return codes.SCT.Left
    return codes.SCT.Right if "right" in words else None
