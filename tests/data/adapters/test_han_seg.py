from pathlib import Path

from tests.fixtures.miniatures import Phantom, Prepared, assert_row_shows
from tests.fixtures.prepared_miniatures import miniature

FILES = {
    "left carotid artery": "A_Carotid_L",
    "right carotid artery": "A_Carotid_R",
    "arytenoid cartilages": "Arytenoid",
    "mandible": "Bone_Mandible",
    "brainstem": "Brainstem",
    "buccal mucosa": "BuccalMucosa",
    "oral cavity": "Cavity_Oral",
    "left cochlea": "Cochlea_L",
    "right cochlea": "Cochlea_R",
    "cricopharyngeus": "Cricopharyngeus",
    "cervical esophagus": "Esophagus_S",
    "anterior segment of left eyeball": "Eye_AL",
    "anterior segment of right eyeball": "Eye_AR",
    "posterior segment of left eyeball": "Eye_PL",
    "posterior segment of right eyeball": "Eye_PR",
    "left lacrimal gland": "Glnd_Lacrimal_L",
    "right lacrimal gland": "Glnd_Lacrimal_R",
    "left submandibular gland": "Glnd_Submand_L",
    "right submandibular gland": "Glnd_Submand_R",
    "thyroid": "Glnd_Thyroid",
    "glottis": "Glottis",
    "supraglottis": "Larynx_SG",
    "lip": "Lips",
    "optic chiasm": "OpticChiasm",
    "left optic nerve": "OpticNrv_L",
    "right optic nerve": "OpticNrv_R",
    "left parotid gland": "Parotid_L",
    "right parotid gland": "Parotid_R",
    "pituitary": "Pituitary",
    "spinal cord": "SpinalCord",
}
VALUE = {organ: value for value, organ in enumerate(FILES.values(), start=1)}
COMPLETE = Phantom(values=tuple(VALUE.values()), size=(34, 28, 16), spacing=(0.75, 0.75, 2.0))
PART = Phantom(values=(VALUE["Cochlea_L"], VALUE["SpinalCord"]), spacing=(1.0, 1.0, 3.0), seed=1)


@miniature(
    "han-seg",
    truncated={"set_1/case_03/case_03_OAR_SpinalCord.seg.nrrd": "case_03"},
)
def prepared(origin: Path) -> None:
    drawn = {
        "case_01": (COMPLETE, list(FILES.values())),
        "case_02": (PART, ["Cochlea_L", "Cochlea_R", "SpinalCord"]),
        "case_03": (PART, ["SpinalCord"]),
    }
    for key, (phantom, organs) in drawn.items():
        folder = origin / "set_1" / key
        phantom.write_image(folder / f"{key}_IMG_CT.nrrd")
        Phantom(size=(20, 20, 12)).write_image(folder / f"{key}_IMG_MR_T1.nrrd")
        for organ in organs:
            phantom.write_mask(folder / f"{key}_OAR_{organ}.seg.nrrd", VALUE[organ])


def test_all_30_organs_lie_at_their_places(prepared: Prepared):
    present = {target: VALUE[organ] for target, organ in FILES.items()}
    assert len(present) == 30
    assert_row_shows(prepared.rows["case_01"], COMPLETE, present)


def test_an_organ_without_a_file_is_unknown_and_one_with_an_empty_file_absent(prepared: Prepared):
    present = {"left cochlea": VALUE["Cochlea_L"], "spinal cord": VALUE["SpinalCord"]}
    assert_row_shows(prepared.rows["case_02"], PART, present, ["right cochlea"])


def test_patients_have_the_numbers_of_the_data_set(prepared: Prepared):
    assert {row["patient"] for row in prepared.rows.values()} == {"han-seg:case_01", "han-seg:case_02"}
