"""MIMIC-CXR: chest radiographs with reports and their CheXpert labels.

The origin contains the reports of MIMIC-CXR as ``MIMIC-CXR/files/p10/p10000032/s50414267.txt``, and the images and
tables of MIMIC-CXR-JPG.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from vividmed.data.adapters.base import (
    Adapter,
    Case,
    ImageFile,
    Listed,
    Skipped,
    Split,
    TableRow,
    column,
    each_case,
    official_split,
    presence_turn,
    read_table,
    register,
    report_turn,
)
from vividmed.data.raw.documents import is_file, read_text
from vividmed.data.raw.finding_labels import CHEXPERT_TARGETS, NO_FINDING, parse_chexpert
from vividmed.data.raw.report_text import (
    ReportText,
    drop_placeholders,
    report_from_sections,
    split_sections,
    view_name,
)

JPG = "MIMIC-CXR-JPG"
_SPLIT_TABLE = "mimic-cxr-2.0.0-split.csv"
LICENCE = "PhysioNet Credentialed Health Data License 1.5.0"
TERMS = "PhysioNet gives the data to credentialed users who signed its agreement; they must not be shared."


@register
class MIMICCXR(Adapter):
    name = "mimic-cxr"
    title = "MIMIC-CXR"
    row_kind = "vision_language"
    modalities = ("X-ray",)
    targets = tuple(CHEXPERT_TARGETS.values())
    licence = LICENCE
    access = "credentialed"
    redistribute = "no"
    terms = TERMS
    homepage = "https://physionet.org/content/mimic-cxr-jpg/"
    citation = (
        "Johnson et al. MIMIC-CXR, a de-identified publicly available database of chest radiographs with free-text "
        "reports. Scientific Data 6, 2019."
    )
    layout = {
        "MIMIC-CXR/files/p1*/p*/s*.txt": 227835,
        f"{JPG}/files/p1*/p*/s*/*.jpg": 377110,
        f"{JPG}/{_SPLIT_TABLE}": 1,
        f"{JPG}/mimic-cxr-2.0.0-metadata.csv": 1,
        f"{JPG}/mimic-cxr-2.0.0-chexpert.csv": 1,
    }
    gigabytes = 570.0
    published_split = True

    def cases(self, origin: Path) -> Iterator[Listed]:
        tables = origin / JPG
        metadata = read_table(tables / "mimic-cxr-2.0.0-metadata.csv", "dicom_id", "ViewPosition")
        labels = read_table(
            tables / "mimic-cxr-2.0.0-chexpert.csv", "study_id", NO_FINDING, *CHEXPERT_TARGETS
        )
        studies: dict[str, list[TableRow]] = defaultdict(list)
        for row in read_table(tables / _SPLIT_TABLE, "dicom_id", "study_id", "subject_id", "split"):
            studies[row["study_id"]].append(row)
        make = partial(
            _case,
            origin=origin,
            views=column(metadata, "dicom_id", "ViewPosition"),
            labels={row["study_id"]: row for row in labels},
        )
        yield from each_case(((f"s{study}", images) for study, images in studies.items()), make)


def _case(
    images: list[TableRow], *, origin: Path, views: Mapping[str, str], labels: Mapping[str, TableRow]
) -> Case | Skipped:
    study, subject = images[0]["study_id"], images[0]["subject_id"]
    key, patient = f"s{study}", f"p{subject}" if subject else ""
    path = origin / f"MIMIC-CXR/files/{patient[:3]}/{patient}/{key}.txt"
    if not is_file(path):
        return Skipped(key, "its report is missing")
    report = report_from_sections(split_sections(read_text(path)))
    report = ReportText(drop_placeholders(report.findings), drop_placeholders(report.impression))
    if not report.is_complete:
        return Skipped(key, "its report lacks findings or an impression, or one of them is too short")
    turns = [report_turn(report.findings, report.impression)]
    if study in labels:
        found = parse_chexpert(labels[study], where=labels[study].where)
        if found.present or found.absent or found.uncertain:
            turns.append(presence_turn(present=found.present, absent=found.absent, uncertain=found.uncertain))
    return Case(
        id=key,
        patient=patient,
        split=official_split(images[0]["split"]),
        images=tuple(
            ImageFile(
                path=image_path(origin, image["subject_id"], study, image["dicom_id"]),
                modality="X-ray",
                plane=view_name(views.get(image["dicom_id"])),
            )
            for image in sorted(images, key=lambda image: image["dicom_id"])
        ),
        turns=tuple(turns),
    )


def image_path(origin: Path, subject: str, study: str, dicom: str) -> Path:
    """Path of an image of MIMIC-CXR-JPG; ids are numbers without ``p`` and ``s``."""
    return origin / JPG / f"files/p{subject[:2]}/p{subject}/s{study}/{dicom}.jpg"


def official_splits(origin: Path) -> dict[str, Split]:
    """Image (``dicom_id``) to its official split, for data sets that annotate these images."""
    rows = read_table(origin / JPG / _SPLIT_TABLE, "dicom_id", "split")
    splits = {row["dicom_id"]: official_split(row["split"]) for row in rows}
    return {image: split for image, split in splits.items() if split is not None}
