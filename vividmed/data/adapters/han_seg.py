"""HaN-Seg: 30 organs at risk in CT of the head and neck.

The T1 MRI of each patient lies on another grid and is left out.
"""

from collections.abc import Iterator
from pathlib import Path

from vividmed.data.adapters.base import Adapter, Case, ImageFile, MaskFiles, files, register

_ORGANS = {
    "A_Carotid_L": "left carotid artery",
    "A_Carotid_R": "right carotid artery",
    "Arytenoid": "arytenoid cartilages",
    "Bone_Mandible": "mandible",
    "Brainstem": "brainstem",
    "BuccalMucosa": "buccal mucosa",
    "Cavity_Oral": "oral cavity",
    "Cochlea_L": "left cochlea",
    "Cochlea_R": "right cochlea",
    "Cricopharyngeus": "cricopharyngeus",
    "Esophagus_S": "cervical esophagus",
    "Eye_AL": "anterior segment of left eyeball",
    "Eye_AR": "anterior segment of right eyeball",
    "Eye_PL": "posterior segment of left eyeball",
    "Eye_PR": "posterior segment of right eyeball",
    "Glnd_Lacrimal_L": "left lacrimal gland",
    "Glnd_Lacrimal_R": "right lacrimal gland",
    "Glnd_Submand_L": "left submandibular gland",
    "Glnd_Submand_R": "right submandibular gland",
    "Glnd_Thyroid": "thyroid",
    "Glottis": "glottis",
    "Larynx_SG": "supraglottis",
    "Lips": "lip",
    "OpticChiasm": "optic chiasm",
    "OpticNrv_L": "left optic nerve",
    "OpticNrv_R": "right optic nerve",
    "Parotid_L": "left parotid gland",
    "Parotid_R": "right parotid gland",
    "Pituitary": "pituitary",
    "SpinalCord": "spinal cord",
}


@register
class HaNSeg(Adapter):
    name = "han-seg"
    title = "HaN-Seg"
    modalities = ("CT",)
    targets = tuple(_ORGANS.values())
    licence = "CC BY-NC-ND 4.0 (not confirmed)"
    access = "open"
    redistribute = "no"
    terms = "A licence without derivatives does not allow sharing what is made of the scans."
    homepage = "https://han-seg2023.grand-challenge.org/"
    citation = (
        "Podobnik et al. HaN-Seg: The head and neck organ-at-risk CT and MR segmentation dataset. Medical Physics 50, "
        "2023."
    )
    layout = {"set_1/case_*/case_*_IMG_CT.nrrd": 42, "set_1/case_*/case_*_OAR_*.seg.nrrd": None}
    gigabytes = 4.5

    def cases(self, origin: Path) -> Iterator[Case]:
        for image in files(origin, "set_1/case_*/case_*_IMG_CT.nrrd"):
            key = image.parent.name
            masks = {
                target: path
                for organ, target in _ORGANS.items()
                # Not every organ was drawn in every patient.
                if (path := image.with_name(f"{key}_OAR_{organ}.seg.nrrd")).exists()
            }
            yield Case(
                id=key,
                patient=key,
                images=(ImageFile(path=image, modality="CT"),),
                annotations=(MaskFiles(masks),),
            )
