from pathlib import Path

from tests.fixtures.miniatures import Phantom, Prepared, assert_row_shows
from tests.fixtures.prepared_miniatures import miniature

FILES = {
    "Brain": "brain",
    "BrainStem": "brainstem",
    "Chiasm": "optic chiasm",
    "TemporalLobe_L": "left temporal lobe",
    "TemporalLobe_R": "right temporal lobe",
    "Hippocampus_L": "left hippocampus",
    "Hippocampus_R": "right hippocampus",
    "Eye_L": "left eye",
    "Eye_R": "right eye",
    "Lens_L": "lens of left eye",
    "Lens_R": "lens of right eye",
    "OpticNerve_L": "left optic nerve",
    "OpticNerve_R": "right optic nerve",
    "MiddleEar_L": "left middle ear",
    "MiddleEar_R": "right middle ear",
    "IAC_L": "left internal auditory canal",
    "IAC_R": "right internal auditory canal",
    "TympanicCavity_L": "left tympanic cavity",
    "TympanicCavity_R": "right tympanic cavity",
    "VestibulSemi_L": "left semicircular canal",
    "VestibulSemi_R": "right semicircular canal",
    "Cochlea_L": "left cochlea",
    "Cochlea_R": "right cochlea",
    "ETbone_L": "left eustachian tube",
    "ETbone_R": "right eustachian tube",
    "Pituitary": "pituitary",
    "OralCavity": "oral cavity",
    "Mandible_L": "mandible",
    "Mandible_R": "mandible",
    "Submandibular_L": "left submandibular gland",
    "Submandibular_R": "right submandibular gland",
    "Parotid_L": "left parotid gland",
    "Parotid_R": "right parotid gland",
    "Mastoid_L": "left mastoid bone",
    "Mastoid_R": "right mastoid bone",
    "TMjoint_L": "left temporomandibular joint",
    "TMjoint_R": "right temporomandibular joint",
    "SpinalCord": "spinal cord",
    "Esophagus": "esophagus",
    "Larynx": "larynx",
    "Larynx_Glottic": "glottis",
    "Larynx_Supraglot": "supraglottis",
    "PharynxConst": "pharynx",
    "Thyroid": "thyroid",
    "Trachea": "trachea",
}
TUMOURS = {"GTVp": "nasopharyngeal tumor", "GTVnd": "nasopharyngeal lymph node"}
VALUES = {name: value for value, name in enumerate((*FILES, *TUMOURS), start=1)}
PLAIN = Phantom(values=tuple(VALUES.values()), size=(44, 34, 20), spacing=(0.6, 0.6, 3.0))
CONTRAST = Phantom(values=PLAIN.values, size=PLAIN.size, spacing=PLAIN.spacing, body=90, seed=1)


def _write(origin: Path, key: str, without: tuple[str, ...] = ()) -> Path:
    scans = origin / f"SegRap2023_Training_Set_120cases/{key}"
    updated = origin / f"SegRap2023_Training_Set_120cases_Update_Labels/{key}"
    PLAIN.write_image(scans / "image.nii.gz")
    CONTRAST.write_image(scans / "image_contrast.nii.gz")
    for name, value in VALUES.items():
        folder = updated if name in FILES else scans
        PLAIN.write_mask(folder / f"{name}.nii.gz", *(() if name in without else (value,)))
    return scans


@miniature(
    "segrap2023",
    truncated={"SegRap2023_Training_Set_120cases/segrap_0002/GTVp.nii.gz": "segrap_0002"},
)
def prepared(origin: Path) -> None:
    _write(origin, "segrap_0000")
    _write(origin, "segrap_0001", without=("Larynx_Glottic", "GTVnd"))
    _write(origin, "segrap_0002")


def _expected() -> dict[str, int | tuple[int, ...]]:
    names = FILES | TUMOURS
    single = {names[name]: value for name, value in VALUES.items() if not name.startswith("Mandible")}
    return single | {"mandible": (VALUES["Mandible_L"], VALUES["Mandible_R"])}


def test_both_scans_have_organs_and_tumours_at_their_places(prepared: Prepared):
    rows = {modality: prepared.rows[f"segrap_0000_{modality}"] for modality in ("CT", "contrast-enhanced-CT")}
    assert len(_expected()) == 46
    for phantom, row in zip((PLAIN, CONTRAST), rows.values(), strict=True):
        assert_row_shows(row, phantom, _expected())
    assert rows["contrast-enhanced-CT"]["modality"] == "contrast-enhanced CT"


def test_both_halves_of_the_mandible_are_one_mask(prepared: Prepared):
    row = prepared.rows["segrap_0000_CT"]
    assert [mask["target"] for mask in row["masks"]].count("mandible") == 1


def test_empty_files_mean_absent(prepared: Prepared):
    absent = {"glottis", "nasopharyngeal lymph node"}
    present = {target: values for target, values in _expected().items() if target not in absent}
    assert_row_shows(prepared.rows["segrap_0001_CT"], PLAIN, present, absent)


def test_patients_have_the_numbers_of_the_data_set(prepared: Prepared):
    assert {row["patient"] for row in prepared.rows.values()} == {"segrap2023:0000", "segrap2023:0001"}
