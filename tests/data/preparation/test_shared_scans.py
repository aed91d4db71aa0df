"""The same scan in two data sets lies in the same split of both."""

import json
from collections import defaultdict
from pathlib import Path

import pytest

from tests.fixtures.miniatures import write_table
from vividmed.data.adapters import adapter_names, get_adapter
from vividmed.data.preparation.case_rows import Processing
from vividmed.data.preparation.plan import list_cases
from vividmed.data.raw.case import SPLITS


def touch(origin: Path, *names: str) -> None:
    """Files without content: cases are listed without reading images."""
    for name in names:
        (origin / name).parent.mkdir(parents=True, exist_ok=True)
        (origin / name).touch()


def splits_of(name: str, origin: Path) -> dict[str, str]:
    """Patient key to split."""
    adapter = get_adapter(name)
    listing = list_cases(adapter, origin, Processing())
    assert listing.failed == {}
    return {adapter.patient_key(item.case): item.split for item in listing.cases}


def assert_agree(*sets: dict[str, str], shared: int) -> None:
    """Every patient has one split; so many are in two sets or more, and all splits occur among them."""
    found: dict[str, list[str]] = defaultdict(list)
    for splits in sets:
        for patient, split in splits.items():
            found[patient].append(split)
    several = {patient: set(splits) for patient, splits in found.items() if len(splits) > 1}
    assert {patient: splits for patient, splits in several.items() if len(splits) > 1} == {}
    assert len(several) == shared
    assert set().union(*several.values()) == set(SPLITS)


def test_scans_of_lits(tmp_path: Path):
    """LiTS, Task03 of the decathlon, CT-ORG, CTSpine1K and the addition to WORD, whose own scans have official splits."""
    numbers = range(131)
    touch(tmp_path / "lits", *(f"Training Batch 1/volume-{n}.nii" for n in numbers))
    touch(tmp_path / "lits", *(f"Training Batch 1/segmentation-{n}.nii" for n in numbers))
    for part in ("images", "labels"):
        touch(tmp_path / "msd", *(f"{part}Tr/liver_{n}.nii.gz" for n in numbers))
    touch(tmp_path / "ct-org", *(f"labels-{n}.nii.gz" for n in range(140)))
    spine = tmp_path / "ctspine1k"
    touch(spine, *(f"CTSpine1K/trainset/gt/liver_{n}_seg.nii.gz" for n in numbers))
    touch(spine, *(f"MSD/Task03_Liver/imagesTr/liver_{n}.nii.gz" for n in numbers))
    (spine / "Path.csv").write_text("")
    word = tmp_path / "word"
    for part, ids in (("Tr", range(1, 6)), ("Val", range(6, 9))):
        touch(word, *(f"labels{part}/word_{n:04d}.nii.gz" for n in ids))
    added = range(0, 131, 5)
    touch(word, *(f"addition_validation_from_LiTS/lablesTs/liver_{n}_word_label.nii.gz" for n in added))
    touch(word, *(f"MSD/Task03_Liver/imagesTr/liver_{n}.nii.gz" for n in added))
    sets = {
        "lits": splits_of("lits", tmp_path / "lits"),
        "msd-task03-liver": splits_of("msd-task03-liver", tmp_path / "msd"),
        "ct-org": splits_of("ct-org", tmp_path / "ct-org"),
        "ctspine1k": splits_of("ctspine1k", spine),
        "word": splits_of("word", word),
    }
    assert_agree(*sets.values(), shared=131)
    assert len(sets["word"]) == 8 + len(added)
    assert {sets["word"][f"word:{n:04d}"] for n in range(6, 9)} == {"validation"}


def test_scans_in_ctpelvic1k_and_ctspine1k(tmp_path: Path):
    """BTCV, Task10 of the decathlon and CT COLONOGRAPHY."""
    pelvis, spine = tmp_path / "ctpelvic1k", tmp_path / "ctspine1k"
    numbers = range(1, 61)
    for n in numbers:
        touch(tmp_path / "abdomen", f"RawData/Training/label/label{n:04d}.nii.gz")
        touch(tmp_path / "cervix", f"RawData/Training/label/{n:07d}-Mask.nii.gz")
        for part in ("images", "labels"):
            touch(tmp_path / "colon", f"{part}Tr/colon_{n:03d}.nii.gz")
        masks = {
            f"dataset1_img{n:04d}": f"BTCV/Abdomen/RawData/Training/img/img{n:04d}.nii.gz",
            f"dataset3_colon_{n:03d}": f"MSD/Task10_Colon/imagesTr/colon_{n:03d}.nii.gz",
            f"dataset5_{n:07d}_Image": f"BTCV/Cervix/RawData/Training/img/{n:07d}-Image.nii.gz",
            f"dataset2_1.3.6.{n:04d}_4_350": f"CT COLONOGRAPHY/1.3.6.{n:04d}/study/4.000000-x/1.dcm",
        }
        for name, image in masks.items():
            number = name.removeprefix("dataset")[0]
            touch(pelvis, f"CTPelvic1K_dataset{number}_mask_mappingback/{name}_mask_4label.nii.gz", image)
        touch(spine, f"CTSpine1K/trainset/gt/1.3.6.{n:04d}_seg.nii.gz")
        touch(spine, f"CT COLONOGRAPHY/1.3.6.{n:04d}/study/4.000000-x/1.dcm")
    (spine / "Path.csv").write_text("".join(f"1.3.6.{n:04d}/study/4.000000-x\n" for n in numbers))
    shared = splits_of("ctpelvic1k", pelvis)
    assert len(shared) == 4 * len(numbers)
    for name, folder in (
        ("btcv-abdomen", "abdomen"),
        ("btcv-cervix", "cervix"),
        ("msd-task10-colon", "colon"),
    ):
        assert_agree(shared, splits_of(name, tmp_path / folder), shared=len(numbers))
    assert_agree(shared, splits_of("ctspine1k", spine), shared=len(numbers))


def test_a_case_of_m3d_with_series_in_two_splits_is_held_out_in_both_sets(tmp_path: Path):
    listed = {"train": ["1/Axial", "2/Axial", "4/Axial"], "validation": ["3/Axial"], "test": ["1/Coronal"]}
    (tmp_path / "M3D_Cap").mkdir()
    entries = {
        split: [{"image": f"ct_case/{name}.npy", "text": "text.txt"} for name in names]
        for split, names in listed.items()
    }
    (tmp_path / "M3D_Cap/M3D_Cap.json").write_text(json.dumps(entries))
    for number in (1, 2, 3, 4):
        text = tmp_path / f"M3D_Cap/ct_case/{number}/text.txt"
        text.parent.mkdir(parents=True)
        text.write_text("study_findings: There is a cyst.\n")
    for part, name in (("train", "1/Axial"), ("val", "3/Axial"), ("test", "4/Axial")):
        row = {"Image Path": f"ct_case/{name}.npy", "Question": "What is shown?", "Answer": "A cyst"}
        write_table(tmp_path / f"M3D-VQA/M3D_VQA_{part}.csv", [row])
    captions, questions = splits_of("m3d-cap", tmp_path), splits_of("m3d-vqa", tmp_path)
    expected = {"1": "test", "2": "train", "3": "validation", "4": "train"}
    assert captions == {f"m3d-cap:ct_case/{key}": split for key, split in expected.items()}
    assert questions == {key: captions[key] for key in questions}
    assert len(questions) == 3


BORROWERS = [name for name in adapter_names() if get_adapter(name).patients not in (None, name)]


@pytest.mark.parametrize("name", BORROWERS)
def test_a_set_that_annotates_scans_of_another_has_official_splits_only_if_that_one_has(name: str):
    adapter = get_adapter(name)

    owner = get_adapter(str(adapter.patients))
    assert adapter.published_split == owner.published_split


def test_borrowers_are_known():
    assert {"msd-task03-liver", "ms-cxr", "rexgroundingct", "radgenome-chestct"} <= set(BORROWERS)
