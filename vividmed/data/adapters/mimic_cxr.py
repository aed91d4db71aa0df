"""MIMIC-CXR: chest radiographs with reports and their CheXpert labels.

The origin holds the reports of MIMIC-CXR as ``MIMIC-CXR/files/p10/p10000032/s50414267.txt`` and, beside them, the
images and tables of MIMIC-CXR-JPG.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from vividmed.data.adapters.base import (
    Adapter,
    Case,
    ImageFile,
    Skipped,
    Split,
    column,
    presence_turn,
    read_table,
    register,
    report_turn,
)
from vividmed.data.raw.documents import read_text
from vividmed.data.raw.finding_labels import CHEXPERT_TARGETS, NO_FINDING, parse_chexpert
from vividmed.data.raw.report_text import (
    ReportText,
    drop_placeholders,
    report_from_sections,
    split_sections,
    view_name,
)

JPG = "MIMIC-CXR-JPG"
LICENCE = "PhysioNet Credentialed Health Data License 1.5.0"
TERMS = "PhysioNet gives the data to credentialed users who signed its agreement; they must not be shared."
_SPLITS: dict[str, Split] = {"train": "train", "validate": "validation", "test": "test"}


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
        f"{JPG}/mimic-cxr-2.0.0-split.csv": 1,
        f"{JPG}/mimic-cxr-2.0.0-metadata.csv": 1,
        f"{JPG}/mimic-cxr-2.0.0-chexpert.csv": 1,
    }
    gigabytes = 570.0
    published_split = True

    def cases(self, origin: Path) -> Iterator[Case | Skipped]:
        tables = origin / JPG
        rows = read_table(tables / "mimic-cxr-2.0.0-split.csv", "dicom_id", "study_id", "subject_id", "split")
        views = column(
            read_table(tables / "mimic-cxr-2.0.0-metadata.csv", "dicom_id", "ViewPosition"),
            "dicom_id",
            "ViewPosition",
        )
        labels = {
            row["study_id"]: row
            for row in read_table(
                tables / "mimic-cxr-2.0.0-chexpert.csv", "study_id", NO_FINDING, *CHEXPERT_TARGETS
            )
        }
        studies: dict[str, list[dict[str, str]]] = defaultdict(list)
        for row in rows:
            studies[row["study_id"]].append(row)
        for study, images in studies.items():
            yield _case(origin, study, images, views, labels.get(study))


def _case(
    origin: Path,
    study: str,
    images: list[dict[str, str]],
    views: Mapping[str, str],
    labels: Mapping[str, str] | None,
) -> Case | Skipped:
    key, patient = f"s{study}", f"p{images[0]['subject_id']}"
    path = origin / f"MIMIC-CXR/files/{patient[:3]}/{patient}/{key}.txt"
    if not path.is_file():
        return Skipped(key, "its report is missing")
    report = report_from_sections(split_sections(read_text(path)))
    report = ReportText(drop_placeholders(report.findings), drop_placeholders(report.impression))
    if not report.is_complete:
        return Skipped(key, "its report lacks findings or an impression, or one of them is too short")
    turns = [report_turn(report.findings, report.impression)]
    if labels is not None:
        found = parse_chexpert(labels, where=f"mimic-cxr-2.0.0-chexpert.csv, study {study}")
        if found.present or found.absent or found.uncertain:
            turns.append(presence_turn(present=found.present, absent=found.absent, uncertain=found.uncertain))
    return Case(
        id=key,
        patient=patient,
        split=_SPLITS.get(images[0]["split"]),
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
    """Where MIMIC-CXR-JPG has an image; ids are numbers without ``p`` and ``s``."""
    return origin / JPG / f"files/p{subject[:2]}/p{subject}/s{study}/{dicom}.jpg"


def official_splits(origin: Path) -> dict[str, Split]:
    """Image (``dicom_id``) to its official split, for data sets that annotate these images."""
    rows = read_table(origin / JPG / "mimic-cxr-2.0.0-split.csv", "dicom_id", "split")
    return {row["dicom_id"]: _SPLITS[row["split"]] for row in rows if row["split"] in _SPLITS}
