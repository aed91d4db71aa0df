"""CT-RATE: chest CT volumes with reports and labels of 18 findings.

The origin contains the folder ``dataset`` of the Hub repository. Volumes come from its second release (``train_fixed``,
``valid_fixed``), whose headers give their position in the patient; those of the first release do not.
"""

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from vividmed.data.adapters.base import (
    Case,
    ImageFile,
    Listed,
    Skipped,
    Split,
    TableRow,
    each_case,
    presence_turn,
    read_table,
    register,
    report_turn,
)
from vividmed.data.adapters.ct_rate_family import (
    PARTS,
    CTRATEAdapter,
    held_out_patients,
    patient_of,
    split_of,
    volume_name,
    volume_path,
)
from vividmed.data.raw.documents import is_file, read_text
from vividmed.data.raw.finding_labels import CT_RATE_TARGETS, parse_ct_rate
from vividmed.data.raw.report_text import clean_text


@register
class CTRATE(CTRATEAdapter):
    name = "ct-rate"
    title = "CT-RATE"
    row_kind = "vision_language"
    targets = tuple(CT_RATE_TARGETS.values())
    homepage = "https://huggingface.co/datasets/ibrahimhamamci/CT-RATE"
    citation = (
        "Hamamci et al. Developing Generalist Foundation Models from a Multimodal Dataset for 3D Computed Tomography. "
        "arXiv:2403.17834, 2024."
    )
    layout = {
        "dataset/train_fixed/*/*/*.nii.gz": 47149,
        "dataset/valid_fixed/*/*/*.nii.gz": 3039,
        "dataset/radiology_text_reports/train_reports.csv": 1,
        "dataset/radiology_text_reports/validation_reports.csv": 1,
        "dataset/multi_abnormality_labels/train_predicted_labels.csv": 1,
        "dataset/multi_abnormality_labels/valid_predicted_labels.csv": 1,
    }
    gigabytes = 12000.0

    def cases(self, origin: Path) -> Iterator[Listed]:
        held_out = held_out_patients(origin)
        for part, table in PARTS:
            label_table = origin / f"dataset/multi_abnormality_labels/{part}_predicted_labels.csv"
            labels = {
                volume_name(row["VolumeName"]): row
                for row in read_table(label_table, "VolumeName", *CT_RATE_TARGETS)
            }
            make = partial(
                _case,
                origin=origin,
                labels=labels,
                other_regions=_not_of_the_chest(origin, part),
                held_out=held_out,
            )
            reports = origin / f"dataset/radiology_text_reports/{table}_reports.csv"
            rows = read_table(reports, "VolumeName", "Findings_EN", "Impressions_EN")
            yield from each_case(((volume_name(row["VolumeName"]), row) for row in rows), make)


def _case(
    row: TableRow,
    *,
    origin: Path,
    labels: Mapping[str, TableRow],
    other_regions: frozenset[str],
    held_out: dict[str, Split],
) -> Case | Skipped:
    volume = volume_name(row["VolumeName"])
    if volume in other_regions:
        return Skipped(volume, "the authors list it as a scan of another region than the chest")
    findings, impression = (clean_text(row[name]) for name in ("Findings_EN", "Impressions_EN"))
    if not findings:
        return Skipped(volume, "its report has no findings")
    turns = [report_turn(findings, impression or None)]
    if volume in labels:
        found = parse_ct_rate(labels[volume], where=labels[volume].where)
        turns.append(presence_turn(present=found.present, absent=found.absent))
    patient = patient_of(volume)
    return Case(
        id=volume,
        patient=patient,
        split=split_of(patient, held_out),
        images=(ImageFile(path=volume_path(origin, volume), modality="CT", plane="axial"),),
        turns=tuple(turns),
    )


def _not_of_the_chest(origin: Path, part: str) -> frozenset[str]:
    """Volumes that the authors list as scans of another region; none if their list is not there."""
    path = origin / f"dataset/metadata/no_chest_{part}.txt"
    names = re.findall(r"(?:train|valid)_\d+_[a-z]+_\d+", read_text(path)) if is_file(path) else ()
    return frozenset(names)
