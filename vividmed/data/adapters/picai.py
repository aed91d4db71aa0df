"""PI-CAI: clinically significant prostate cancer in T2-weighted MRI."""

from collections.abc import Iterator
from pathlib import Path

from vividmed.data.adapters.base import (
    Adapter,
    Case,
    ImageFile,
    LabelMap,
    Skipped,
    files,
    read_table,
    register,
)

_CANCER = "prostate cancer"
_GRADES = (1, 2, 3, 4, 5)
_DRAWN = "picai_labels/csPCa_lesion_delineations/human_expert/resampled"


@register
class PICAI(Adapter):
    name = "pi-cai"
    title = "PI-CAI"
    modalities = ("T2 MRI",)
    targets = (_CANCER,)
    licence = "CC BY-NC 4.0 (not confirmed)"
    access = "open"
    redistribute = "no"
    terms = "The licence must be confirmed before the scans are shared."
    homepage = "https://pi-cai.grand-challenge.org/"
    citation = (
        "Saha et al. Artificial intelligence and radiologists in prostate cancer detection on MRI (PI-CAI). "
        "The Lancet Oncology 25, 2024."
    )
    layout = {
        "picai_public_images_fold*/*/*_t2w.mha": 1500,
        f"{_DRAWN}/*.nii.gz": 1295,
        "picai_labels/clinical_information/marksheet.csv": 1,
    }
    gigabytes = 33.0

    def cases(self, origin: Path) -> Iterator[Case | Skipped]:
        drawn = {path.name.removesuffix(".nii.gz"): path for path in files(origin, f"{_DRAWN}/*.nii.gz")}
        table = origin / "picai_labels/clinical_information/marksheet.csv"
        grade = {
            f"{row['patient_id']}_{row['study_id']}": row["case_ISUP"]
            for row in read_table(table, "patient_id", "study_id", "case_ISUP")
        }
        for image in files(origin, "picai_public_images_fold*/*/*_t2w.mha"):
            key = image.name.removesuffix("_t2w.mha")
            if key not in drawn:
                yield Skipped(key, "no expert drew the lesions of this study")
                continue
            # Cancer of grade 1 was not drawn, so an empty mask excludes cancer only if none was found at all.
            annotation = LabelMap(
                drawn[key],
                {_CANCER: _GRADES},
                instances=frozenset({_CANCER}),
                partial=frozenset({_CANCER}),
            )
            yield Case(
                id=key,
                patient=key.partition("_")[0],
                images=(ImageFile(path=image, modality="T2 MRI"),),
                annotations=(annotation,),
                absent=(_CANCER,) if grade.get(key) == "0" else (),
            )
