from pathlib import Path

from tests.fixtures.miniatures import (
    Phantom,
    Prepared,
    assert_row_shows,
    image_of,
)
from tests.fixtures.prepared_miniatures import miniature

CT = Phantom(values=(1,), spacing=(2.0, 2.0, 3.0))
PET = Phantom(values=(1,), spacing=(2.0, 2.0, 3.0), background=0, body=5, seed=1)
HEALTHY_CT = Phantom(values=(), spacing=(2.0, 2.0, 3.0), seed=2)
HEALTHY_PET = Phantom(values=(), spacing=(2.0, 2.0, 3.0), background=0, body=50, seed=3)
FIRST = "psma_95b833d65be26f94_2018-05-01"
SECOND = "psma_95b833d65be26f94_2019-02-11"
CONTROL = "fdg_1285b86bea_11-24-2006-NA-PET-CT Ganzkoerper  primaer mit KM-14854"
BROKEN = "fdg_0011f3deaf_03-23-2003-NA-PET-CT Ganzkoerper  primaer mit KM-10445"
PHANTOMS = {
    FIRST: (CT, PET),
    SECOND: (CT, PET),
    CONTROL: (HEALTHY_CT, HEALTHY_PET),
    BROKEN: (CT, PET),
}


@miniature(
    "autopet-iii",
    truncated={f"imagesTr/{BROKEN}_0001.nii.gz": BROKEN},
)
def prepared(origin: Path) -> None:
    for key, (ct, pet) in PHANTOMS.items():
        ct.write_image(origin / f"imagesTr/{key}_0000.nii.gz")
        pet.write_image(origin / f"imagesTr/{key}_0001.nii.gz")
        ct.write_labels(origin / f"labelsTr/{key}.nii.gz")


def test_ct_and_pet_are_rows_with_the_same_tumour(prepared: Prepared):
    for modality, phantom in (("CT", CT), ("PET", PET)):
        row = prepared.rows[f"{FIRST}_{modality}"]
        assert row["modality"] == modality
        assert_row_shows(row, phantom, {"tumor": 1})


def test_channel_0_is_the_ct(prepared: Prepared):
    # Air is darker than the body in CT alone; the PET phantom has little body and a bright lesion.
    ct, pet = (image_of(prepared.rows[f"{FIRST}_{modality}"])[0] for modality in ("CT", "PET"))
    assert ct[ct > 0].astype(float).mean() > 100
    assert pet[pet > 0].astype(float).mean() < 100


def test_a_negative_control_has_no_tumour(prepared: Prepared):
    assert_row_shows(prepared.rows[f"{CONTROL}_CT"], HEALTHY_CT, {}, ["tumor"])
    assert_row_shows(prepared.rows[f"{CONTROL}_PET"], HEALTHY_PET, {}, ["tumor"])


def test_studies_of_a_patient_share_patient_and_split(prepared: Prepared):
    keys = [f"{study}_{modality}" for study in (FIRST, SECOND) for modality in ("CT", "PET")]
    assert {prepared.rows[key]["patient"] for key in keys} == {"autopet-iii:psma_95b833d65be26f94"}
    assert len({prepared.split_of[key] for key in keys}) == 1
