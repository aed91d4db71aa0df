"""CHAOS: the liver in CT, and liver, kidneys and spleen in two MRI sequences, of healthy people.

CT and MRI are of different people.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pydicom

from vividmed.data.adapters.base import Adapter, Case, DrawnMasks, ImageFile, files, register
from vividmed.data.raw.annotation import check_known
from vividmed.data.raw.images import read_original
from vividmed.errors import VividMedError
from vividmed.processing.medical_image import MedicalImage

_CT_LABELS = {"liver": range(1, 256)}
# The published ranges around 63, 126, 189 and 252.
_MRI_LABELS = {
    "liver": range(55, 71),
    "right kidney": range(110, 136),
    "left kidney": range(175, 201),
    "spleen": range(240, 256),
}
_SEQUENCES = {
    "T1DUAL-in": ("T1DUAL", "DICOM_anon/InPhase", "T1-DUAL (in-phase) MRI"),
    "T2SPIR": ("T2SPIR", "DICOM_anon", "T2-SPIR MRI"),
}


@register
class CHAOS(Adapter):
    name = "chaos"
    title = "CHAOS"
    modalities = ("CT", *(modality for *_, modality in _SEQUENCES.values()))
    targets = tuple(_MRI_LABELS)
    licence = "CC BY-NC-SA 4.0 (not confirmed)"
    access = "open"
    redistribute = "no"
    terms = "The licence must be confirmed before the scans are shared."
    homepage = "https://chaos.grand-challenge.org/"
    citation = (
        "Kavur et al. CHAOS Challenge: combined (CT-MR) healthy abdominal organ segmentation. Medical Image Analysis "
        "69, 2021."
    )
    layout = {
        "CT/*/DICOM_anon": 20,
        "CT/*/Ground": 20,
        "MR/*/T1DUAL/DICOM_anon/InPhase": 20,
        "MR/*/T1DUAL/Ground": 20,
        "MR/*/T2SPIR/DICOM_anon": 20,
        "MR/*/T2SPIR/Ground": 20,
    }
    gigabytes = 0.9

    def cases(self, origin: Path) -> Iterator[Case]:
        for folder in files(origin, "CT/*"):
            patient = f"CT-{folder.name}"
            yield _case(patient, patient, folder, "DICOM_anon", "CT", _CT_LABELS)
        for folder in files(origin, "MR/*"):
            patient = f"MR-{folder.name}"
            for suffix, (sequence, series, modality) in _SEQUENCES.items():
                yield _case(f"{patient}-{suffix}", patient, folder / sequence, series, modality, _MRI_LABELS)


def _case(
    key: str, patient: str, folder: Path, series: str, modality: str, labels: Mapping[str, range]
) -> Case:
    pictures = tuple(sorted((folder / "Ground").glob("[!.]*.png")))
    return Case(
        id=key,
        patient=patient,
        images=(ImageFile(path=folder / series, modality=modality),),
        annotations=(
            DrawnMasks(tuple(labels), partial(_organs, folder / series, pictures, labels), pictures),
        ),
    )


def _organs(
    series: Path, pictures: tuple[Path, ...], labels: Mapping[str, range], image: MedicalImage
) -> Iterable[tuple[str, np.ndarray]]:
    """Stack one picture per slice. Names have the order of the DICOM files, which may run up or down the body."""
    slices = sorted(path for path in series.glob("[!.]*.dcm"))
    if len(slices) != len(pictures):
        raise VividMedError(
            f"{series}: has {len(slices)} slices but {len(pictures)} pictures in Ground; copy the data set again"
        )
    array = np.zeros(image.size, np.uint8)
    known = {value for values in labels.values() for value in values}
    to_index = np.linalg.inv(image.affine)
    for path, picture in zip(slices, pictures, strict=True):
        x, y, z = pydicom.dcmread(path, specific_tags=["ImagePositionPatient"]).ImagePositionPatient
        drawn = read_original(picture).array[0, 0]
        if drawn.shape != image.size[1:]:
            raise VividMedError(
                f"{picture}: has the size {drawn.shape}, but its slice has {image.size[1:]}; copy it again"
            )
        check_known(np.unique(drawn), known, picture)
        array[round((to_index @ [-x, -y, z, 1])[2])] = drawn  # DICOM's axes point to the left and to the back
    for target, values in labels.items():
        yield target, (array >= values.start) & (array < values.stop)
