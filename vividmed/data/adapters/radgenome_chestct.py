"""RadGenome-ChestCT: sentences of chest CT reports, each with masks of the anatomy it speaks of.

Masks were predicted by the segmentation model SAT. The volumes are copies of CT-RATE that the authors resampled to
1 x 1 x 3 mm in RAS order and stored without a header; masks have their grid.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from vividmed.data.adapters.base import Adapter, Case, ImageFile, MaskFiles, Skipped, read_table, register
from vividmed.data.adapters.ct_rate import LICENCE, TERMS, held_out_patients, patient_of, split_of
from vividmed.data.raw.grounded_sentences import mark_sentences
from vividmed.data.raw.images import read_original
from vividmed.data.taxonomy import Taxonomy
from vividmed.processing.medical_image import MedicalImage

_PARTS = (("train", "train"), ("valid", "validation"))
_SPACING = (1.0, 1.0, 3.0)  # mm towards right, anterior, superior


@register
class RadGenomeChestCT(Adapter):
    name = "radgenome-chestct"
    title = "RadGenome-ChestCT"
    row_kind = "grounded_report"
    modalities = ("CT",)
    licence = LICENCE
    access = "registered"
    redistribute = "derived_gated"
    terms = TERMS
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
    patients = "ct-rate"
    published_split = True
    exclude_minimum = True
    max_depth = 128
    max_in_plane = 256

    def cases(self, origin: Path) -> Iterator[Case | Skipped]:
        held_out = held_out_patients(origin)
        structures = _structures()
        for part, table in _PARTS:
            path = origin / f"dataset/radgenome_files/{table}_region_report.csv"
            sentences: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
            for row in read_table(path, "Volumename", "Anatomy", "Sentence"):
                volume = row["Volumename"].removesuffix(".nii.gz")
                # One sentence may speak of several structures, in a row each; the last part of a path is the finest.
                sentences[volume][row["Sentence"]].append(row["Anatomy"].rpartition("/")[2].strip())
            for volume, spoken in sentences.items():
                patient = patient_of(volume)
                masks = _masks(origin / f"dataset/{part}_anatomy_mask/seg_{volume}", structures)
                report, phrases = mark_sentences(
                    (text, sorted({structures[n] for n in named if structures.get(n) in masks}))
                    for text, named in spoken.items()
                )
                if not phrases:
                    yield Skipped(volume, "no sentence of its report has a mask")
                    continue
                shown = {target for targets in phrases for target in targets}
                study = f"{patient}{volume.split('_')[2]}"
                image = origin / f"dataset/{part}_preprocessed/{patient}/{study}/{volume}.nii.gz"
                yield Case(
                    id=volume,
                    patient=patient,
                    split=split_of(patient, held_out),
                    images=(ImageFile(path=image, modality="CT", plane="axial", read=_read),),
                    annotations=(MaskFiles({name: masks[name] for name in sorted(shown)}, read=_read),),
                    report=f"Findings: {report}",
                    phrases=phrases,
                )


def _masks(folder: Path, structures: dict[str, str]) -> dict[str, Path]:
    """Target to the file of its mask, from the names of the files alone."""
    named = {path.name.removesuffix(".nii.gz"): path for path in sorted(folder.glob("*.nii.gz"))}
    return {structures[name]: path for name, path in named.items() if name in structures}


def _structures() -> dict[str, str]:
    """Name that SAT gives an anatomical structure to its target; its masks of lesions are too often wrong."""
    anatomy = [target for target in Taxonomy.load() if target.category == "anatomy"]
    names = {target.sat_name: target.name for target in anatomy if target.sat_name}
    return names | {term: target.name for target in anatomy for term in target.terms}


def _read(path: Path) -> MedicalImage:
    """Read a volume or mask and give it the geometry that its header lacks."""
    return replace(read_original(path), affine=np.diag([*_SPACING, 1.0]), oriented=True)
