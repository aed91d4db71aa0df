"""RadGenome-ChestCT: sentences of chest CT reports, each with masks of the anatomy that it mentions.

Masks were predicted by the segmentation model SAT. The volumes are copies of CT-RATE that the authors resampled to
1 x 1 x 3 mm in RAS order and stored without a header; the masks have the same grid.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from vividmed.data.adapters.base import (
    Case,
    ImageFile,
    Listed,
    MaskFiles,
    Skipped,
    Split,
    each_case,
    read_table,
    register,
)
from vividmed.data.adapters.ct_rate_family import (
    PARTS,
    CTRATEAdapter,
    held_out_patients,
    patient_of,
    split_of,
    study_of,
    volume_name,
)
from vividmed.data.raw.grounded_sentences import mark_sentences
from vividmed.data.raw.images import read_original
from vividmed.data.taxonomy import Taxonomy
from vividmed.processing.medical_image import MedicalImage

_SPACING = (1.0, 1.0, 3.0)  # mm towards right, anterior, superior

Spoken = dict[str, list[str]]
"""Sentence to the structures that it speaks of."""


@register
class RadGenomeChestCT(CTRATEAdapter):
    name = "radgenome-chestct"
    title = "RadGenome-ChestCT"
    row_kind = "grounded_report"
    homepage = "https://huggingface.co/datasets/RadGenome/RadGenome-ChestCT"
    citation = (
        "Zhang et al. RadGenome-Chest CT: A Grounded Vision-Language Dataset for Chest CT Analysis. arXiv:2404.16754, "
        "2024."
    )
    layout = {
        "dataset/train_preprocessed/*/*/*.nii.gz": None,
        "dataset/valid_preprocessed/*/*/*.nii.gz": 1564,
        "dataset/train_anatomy_mask/seg_*": None,
        "dataset/valid_anatomy_mask/seg_*": 1564,
        "dataset/radgenome_files/train_region_report.csv": 1,
        "dataset/radgenome_files/validation_region_report.csv": 1,
    }
    gigabytes = 1000.0

    def cases(self, origin: Path) -> Iterator[Listed]:
        held_out = held_out_patients(origin)
        structures = _structures()
        for part, table in PARTS:
            path = origin / f"dataset/radgenome_files/{table}_region_report.csv"
            sentences: dict[str, Spoken] = defaultdict(lambda: defaultdict(list))
            for row in read_table(path, "Volumename", "Anatomy", "Sentence"):
                # One sentence may speak of several structures, one per row; the last part of a path is the finest.
                structure = row["Anatomy"].rpartition("/")[2].strip()
                sentences[volume_name(row["Volumename"])][row["Sentence"]].append(structure)
            make = partial(
                _case, folder=origin / "dataset", part=part, structures=structures, held_out=held_out
            )
            yield from each_case(((volume, (volume, spoken)) for volume, spoken in sentences.items()), make)


def _case(
    item: tuple[str, Spoken],
    *,
    folder: Path,
    part: str,
    structures: dict[str, str],
    held_out: dict[str, Split],
) -> Case | Skipped:
    volume, spoken = item
    patient = patient_of(volume)
    masks = _masks(folder / f"{part}_anatomy_mask/seg_{volume}", structures)
    report, phrases = mark_sentences(
        (text, sorted({structures[n] for n in named if structures.get(n) in masks}))
        for text, named in spoken.items()
    )
    if not phrases:
        return Skipped(volume, "no sentence of its report has a mask")
    shown = {target for targets in phrases for target in targets}
    study = study_of(volume).removeprefix(f"{patient}_")
    image = folder / f"{part}_preprocessed/{patient}/{patient}{study}/{volume}.nii.gz"
    return Case(
        id=volume,
        patient=patient,
        split=split_of(patient, held_out),
        images=(ImageFile(path=image, modality="CT", plane="axial", read=_read),),
        annotations=(MaskFiles({name: masks[name] for name in sorted(shown)}, read=_read),),
        report=f"Findings: {report}",
        phrases=phrases,
    )


def _masks(folder: Path, structures: dict[str, str]) -> dict[str, Path]:
    """Target to the file of its mask, judged by the names of the files only."""
    named = {path.name.removesuffix(".nii.gz"): path for path in sorted(folder.glob("*.nii.gz"))}
    return {structures[name]: path for name, path in named.items() if name in structures}


def _structures() -> dict[str, str]:
    """SAT's name of an anatomical structure to its target; SAT's masks of lesions are too often wrong."""
    anatomy = [target for target in Taxonomy.load() if target.category == "anatomy"]
    names = {target.sat_name: target.name for target in anatomy if target.sat_name}
    return names | {term: target.name for target in anatomy for term in target.terms}


def _read(path: Path) -> MedicalImage:
    """Read a volume or mask and add the geometry that its header lacks."""
    return replace(read_original(path), affine=np.diag([*_SPACING, 1.0]), oriented=True)
