"""SegRap2023: organs at risk and tumour volumes of nasopharyngeal cancer in plain and contrast-enhanced CT."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from vividmed.data.adapters.base import Adapter, Case, DrawnMasks, ImageFile, MaskFiles, files, register
from vividmed.data.raw.annotation import read_labels
from vividmed.processing.medical_image import MedicalImage

_PAIRED = {
    "TemporalLobe": "temporal lobe",
    "Hippocampus": "hippocampus",
    "Eye": "eye",
    "OpticNerve": "optic nerve",
    "MiddleEar": "middle ear",
    "IAC": "internal auditory canal",
    "TympanicCavity": "tympanic cavity",
    "VestibulSemi": "semicircular canal",
    "Cochlea": "cochlea",
    "ETbone": "eustachian tube",
    "Submandibular": "submandibular gland",
    "Parotid": "parotid gland",
    "Mastoid": "mastoid bone",
    "TMjoint": "temporomandibular joint",
}
_SIDES = {"L": "left", "R": "right"}
_ORGANS = {
    "Brain": "brain",
    "BrainStem": "brainstem",
    "Chiasm": "optic chiasm",
    "Lens_L": "lens of left eye",
    "Lens_R": "lens of right eye",
    "Pituitary": "pituitary",
    "OralCavity": "oral cavity",
    "SpinalCord": "spinal cord",
    "Esophagus": "esophagus",
    "Larynx": "larynx",
    "Larynx_Glottic": "glottis",
    "Larynx_Supraglot": "supraglottis",
    "PharynxConst": "pharynx",
    "Thyroid": "thyroid",
    "Trachea": "trachea",
} | {f"{file}_{side}": f"{_SIDES[side]} {name}" for file, name in _PAIRED.items() for side in _SIDES}
_MANDIBLE = "mandible"
_TUMOURS = {"GTVp": "nasopharyngeal tumor", "GTVnd": "nasopharyngeal lymph node"}
_IMAGES = "SegRap2023_Training_Set_120cases"
_UPDATED = f"{_IMAGES}_Update_Labels"


@register
class SegRap2023(Adapter):
    name = "segrap2023"
    title = "SegRap2023"
    modalities = ("CT", "contrast-enhanced CT")
    targets = (*_ORGANS.values(), _MANDIBLE, *_TUMOURS.values())
    licence = "SegRap2023 data agreement (not confirmed)"
    access = "registered"
    redistribute = "no"
    terms = "The challenge gives the scans to registered participants who signed its agreement."
    homepage = "https://segrap2023.grand-challenge.org/"
    citation = (
        "Luo et al. SegRap2023: A benchmark of organs-at-risk and gross tumor volume segmentation for radiotherapy "
        "planning of nasopharyngeal carcinoma. Medical Image Analysis 101, 2025."
    )
    layout = {
        f"{_IMAGES}/segrap_*/image.nii.gz": 120,
        f"{_IMAGES}/segrap_*/image_contrast.nii.gz": 120,
        f"{_IMAGES}/segrap_*/GTV*.nii.gz": 240,
        f"{_UPDATED}/segrap_*/*.nii.gz": 120 * 45,
    }
    gigabytes = 22.0

    def cases(self, origin: Path) -> Iterator[Case]:
        for folder in files(origin, f"{_UPDATED}/segrap_*"):
            scans = origin / _IMAGES / folder.name
            halves = (folder / "Mandible_L.nii.gz", folder / "Mandible_R.nii.gz")
            yield Case(
                id=folder.name,
                patient=folder.name.removeprefix("segrap_"),
                images=(
                    ImageFile(path=scans / "image.nii.gz", modality="CT"),
                    ImageFile(path=scans / "image_contrast.nii.gz", modality="contrast-enhanced CT"),
                ),
                annotations=(
                    MaskFiles(_paths(folder, _ORGANS)),
                    DrawnMasks((_MANDIBLE,), partial(_draw_mandible, halves), halves),
                    # The update contains organs only; the tumours lie next to the scans.
                    MaskFiles(_paths(scans, _TUMOURS)),
                ),
            )


def _paths(folder: Path, names: Mapping[str, str]) -> Mapping[str, Path]:
    return {target: folder / f"{file}.nii.gz" for file, target in names.items()}


def _draw_mandible(halves: tuple[Path, ...], image: MedicalImage) -> Iterator[tuple[str, np.ndarray]]:
    """Draw one bone, which the data set cuts in two."""
    yield _MANDIBLE, np.any([read_labels(path, image) for path in halves], axis=0)
