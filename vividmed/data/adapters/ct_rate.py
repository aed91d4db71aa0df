"""CT-RATE: chest CT volumes with reports and labels of 18 findings.

The origin holds the folder ``dataset`` of the Hub repository. Volumes come from its second release (``train_fixed``,
``valid_fixed``), whose headers say where they lie in the patient; the first one's do not.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from vividmed.data.adapters.base import (
    Adapter,
    Case,
    ImageFile,
    Skipped,
    Split,
    presence_turn,
    read_table,
    register,
    report_turn,
)
from vividmed.data.raw.documents import read_json, read_text
from vividmed.data.raw.finding_labels import CT_RATE_TARGETS, parse_ct_rate
from vividmed.data.raw.report_text import clean_whitespace
from vividmed.errors import VividMedError

LICENCE = "CC BY-NC-SA 4.0"
TERMS = (
    "The Hub repository is gated: every user accepts its conditions, and prepared data needs the same gate."
)
# Names in tables begin with train or valid; folders and tables spell the second part in their own ways.
_PARTS = (("train", "train"), ("valid", "validation"))
_VOLUME = re.compile(r"((train|valid)_\d+)_[a-z]+_\d+")
_HELD_OUT: dict[str, Split] = {"val": "validation", "validation": "validation", "test": "test"}


@register
class CTRATE(Adapter):
    name = "ct-rate"
    title = "CT-RATE"
    row_kind = "vision_language"
    modalities = ("CT",)
    targets = tuple(CT_RATE_TARGETS.values())
    licence = LICENCE
    access = "registered"
    redistribute = "derived_gated"
    terms = TERMS
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
    published_split = True
    exclude_minimum = True
    max_depth = 128
    max_in_plane = 256

    def cases(self, origin: Path) -> Iterator[Case | Skipped]:
        held_out = held_out_patients(origin)
        for part, table in _PARTS:
            labels = {
                row["VolumeName"]: row
                for row in read_table(
                    origin / f"dataset/multi_abnormality_labels/{part}_predicted_labels.csv",
                    "VolumeName",
                    *CT_RATE_TARGETS,
                )
            }
            heads = _not_of_the_chest(origin, part)
            for row in read_table(
                origin / f"dataset/radiology_text_reports/{table}_reports.csv",
                "VolumeName",
                "Findings_EN",
                "Impressions_EN",
            ):
                volume = row["VolumeName"].removesuffix(".nii.gz")
                findings, impression = (
                    clean_whitespace(row[name]) for name in ("Findings_EN", "Impressions_EN")
                )
                if volume in heads:
                    yield Skipped(volume, "is no chest CT according to the authors")
                    continue
                if not findings:
                    yield Skipped(volume, "its report has no findings")
                    continue
                turns = [report_turn(findings, impression or None)]
                if f"{volume}.nii.gz" in labels:
                    found = parse_ct_rate(labels[f"{volume}.nii.gz"], where=f"labels of {volume}")
                    turns.append(presence_turn(present=found.present, absent=found.absent))
                patient = patient_of(volume)
                yield Case(
                    id=volume,
                    patient=patient,
                    split=split_of(patient, held_out),
                    images=(ImageFile(path=volume_path(origin, volume), modality="CT", plane="axial"),),
                    turns=tuple(turns),
                )


def patient_of(volume: str) -> str:
    """``train_12`` of ``train_12_a_1``.

    Raises:
        VividMedError: It is no name of a volume of CT-RATE.
    """
    match = _VOLUME.fullmatch(volume)
    if match is None:
        raise VividMedError(f"{volume!r} is no volume of CT-RATE; names read train_12_a_1 or valid_3_b_2")
    return match[1]


def volume_path(origin: Path, volume: str) -> Path:
    """Where the second release has a volume."""
    patient = patient_of(volume)
    study = volume.rpartition("_")[0]
    return origin / f"dataset/{patient.partition('_')[0]}_fixed/{patient}/{study}/{volume}.nii.gz"


def held_out_patients(origin: Path) -> dict[str, Split]:
    """Patients that another data set holds out, with their split.

    ReXGroundingCT holds out patients of the training folder. If its list lies in the origin, they are held out here as
    well, so that nobody is trained on who is tested on.
    """
    path = origin / "ReXGroundingCT/dataset.json"
    if not path.is_file():
        return {}
    splits: dict[str, Split] = {}
    try:
        volumes = [(name, entry["name"]) for name, entries in read_json(path).items() for entry in entries]
    except (AttributeError, KeyError, TypeError) as error:
        raise VividMedError(f"{path}: not in the form {{split: [{{name, findings}}]}} ({error!r})") from error
    for name, volume in volumes:
        patient = patient_of(volume.removesuffix(".nii.gz"))
        if name in _HELD_OUT and splits.get(patient) != "test":
            splits[patient] = "test" if patient.startswith("valid") else _HELD_OUT[name]
    return splits


def split_of(patient: str, held_out: dict[str, Split]) -> Split:
    """Split of a patient: the validation folder is the test set, as in publications on the data set.

    Args:
        patient: See :func:`patient_of`.
        held_out: See :func:`held_out_patients`.
    """
    return held_out.get(patient, "test" if patient.startswith("valid") else "train")


def _not_of_the_chest(origin: Path, part: str) -> frozenset[str]:
    """Volumes that the authors list as scans of another region; none if their list is not there."""
    path = origin / f"dataset/metadata/no_chest_{part}.txt"
    names = re.findall(r"(?:train|valid)_\d+_[a-z]+_\d+", read_text(path)) if path.is_file() else ()
    return frozenset(names)
