"""Odd folders of masks: each gives the right rows, or one clear line about what it does not give."""

import gzip
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from tests.data.own.test_layouts import VERSION_1, write_nnunet
from tests.fixtures.miniatures import Phantom, picture, write_picture, write_table
from vividmed.data.own.bids import read_bids_listing
from vividmed.data.own.imagefolder import read_imagefolder_listing
from vividmed.data.own.nnunet import read_nnunet_listing
from vividmed.data.raw.case import Case, Listed
from vividmed.data.raw.images import read_original
from vividmed.errors import VividMedError

PHANTOM = Phantom(values=(1, 2), size=(18, 14, 10), axcodes="LPS")
RENAMES = {"liver tumour": "liver tumor"}


@dataclass(frozen=True)
class Odd:
    """A change of a sound folder and what becomes of it.

    Attributes:
        change: of the folder with the cases ``a`` and ``b``.
        rows: ids of the cases that can be used.
        others: part of the reason of each case that cannot.
        error: part of the line that refuses the whole folder.
    """

    change: Callable[[Path], Any]
    rows: tuple[str, ...] = ("a", "b")
    others: tuple[str, ...] = ()
    error: str = ""


def read_cases(cases: tuple[Listed, ...]) -> tuple[list[Case], list[str]]:
    """Cases whose masks can be read, and the reasons of the others."""
    found, reasons = [], []
    for case in cases:
        if not isinstance(case, Case):
            reasons.append(case.reason)
            continue
        try:
            for image in case.images:
                original = read_original(image.path)
                for annotation in case.annotations:
                    list(annotation.masks(original))
            found.append(case)
        except VividMedError as error:
            reasons.append(str(error))
    return found, reasons


def check(odd: Odd, read: Callable[[], tuple[Listed, ...]], folder: Path) -> list[Case]:
    if odd.error:
        with pytest.raises(VividMedError, match=odd.error) as caught:
            read()
        assert str(folder) in str(caught.value)
        assert "\n" not in str(caught.value)
        return []
    found, reasons = read_cases(read())
    assert [re.sub(r"sub-|_T1w", "", case.id) for case in found] == list(odd.rows)
    assert len(reasons) == len(odd.others), reasons
    for reason, expected in zip(reasons, odd.others, strict=True):
        assert re.search(expected, reason), reason
    return found


def edit(path: Path, change: Callable[[np.ndarray], np.ndarray], dtype: Any = np.uint8) -> None:
    image = nib.load(path)
    changed = nib.Nifti1Image(change(np.asarray(image.dataobj).astype(dtype)), image.affine)
    path.unlink()
    nib.save(changed, path)


def write_bytes(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)


def link(path: Path, target: Path | str) -> None:
    path.unlink()
    path.symlink_to(target)


def moved_and_linked(path: Path, place: Path) -> None:
    shutil.move(path, place)
    path.symlink_to(place)


# Image folders


def metadata(
    *names: str, folders: tuple[str, ...] = ("",), columns: str = "", values: str = ""
) -> Callable[[Path], None]:
    """A function that writes images and metadata files with one question per name."""

    def change(folder: Path) -> None:
        for place in folders:
            for seed, name in enumerate(names):
                path = folder / place / name
                path.parent.mkdir(parents=True, exist_ok=True)
                write_picture(path, picture((24, 20), seed=seed + len(place)))
            lines = [f"file_name,question,answer{columns}", *(f"{name},q?,yes{values}" for name in names)]
            (folder / place / "metadata.csv").write_text("\n".join(lines) + "\n")

    return change


@pytest.mark.parametrize(
    ("change", "splits", "note"),
    [
        (metadata("a.png", "b.png"), {None}, ""),
        (metadata("train/a.png", "test/a.png"), {"train", "test"}, "splits are those that the folders"),
        (metadata("siteA/a.png", "siteB/a.png"), {None}, ""),
        (
            metadata("a.png", folders=("train", "test"), columns=",patient", values=",P1"),
            {"train", "test"},
            "1 patient is in the folders of several splits, such as 'P1'",
        ),
        (metadata("none.png", "nan.png"), {None}, ""),
    ],
)
def test_folders_of_images_that_are_named_after_splits_are_these_splits(change, splits, note, tmp_path: Path):
    change(tmp_path)
    listing = read_imagefolder_listing(tmp_path)
    cases = [case for case in listing.cases if isinstance(case, Case)]
    assert len(cases) == len({case.id for case in cases}) == 2
    assert {case.split for case in cases} == splits
    assert note in " ".join(listing.notes)
    assert all(case.problem() is None for case in cases)


def test_two_metadata_files_of_one_folder_are_refused(tmp_path: Path):
    metadata("a.png")(tmp_path)
    (tmp_path / "metadata.jsonl").touch()
    with pytest.raises(VividMedError, match=r"metadata\.csv and metadata\.jsonl; keep one"):
        read_imagefolder_listing(tmp_path)


# BIDS


def image(folder: Path, ending: str = "T1w.nii.gz") -> Path:
    return folder / f"sub-a/anat/sub-a_{ending}"


def mask(folder: Path, ending: str = "label-spleen_mask.nii.gz") -> Path:
    return folder / f"derivatives/m/sub-a/anat/sub-a_{ending}"


def label_map(table: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        mask(folder).unlink()
        PHANTOM.write_labels(mask(folder, "dseg.nii.gz"))
        mask(folder, "dseg.tsv").write_text(table)

    return change


def participants(text: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / "participants.tsv").write_text(text)


B = ("b",)
BIDS = {
    "a mask is missing": Odd(lambda f: mask(f).unlink(), B, ("there is no mask of its subject",)),
    "a mask of another size": Odd(lambda f: edit(mask(f), lambda a: a[:-2]), B, ("16 x 14 x 10 voxels, but the image 18 x 14 x 10",)),
    "a mask with fractions": Odd(lambda f: edit(mask(f), lambda a: a / 2, float), B, ("fractions",)),
    "a mask of another space": Odd(lambda f: mask(f).rename(mask(f, "space-MNI_label-spleen_mask.nii.gz")), B, ("is in the space 'MNI'",)),
    "a mask of another run": Odd(lambda f: mask(f).rename(mask(f, "run-2_label-spleen_mask.nii.gz")), B, ("is of run-2",)),
    "a mask without a structure": Odd(lambda f: mask(f).rename(mask(f, "mask.nii.gz")), B, ("names no structure",)),
    "an unpacked copy of an image": Odd(lambda f: image(f, "T1w.nii").write_bytes(gzip.decompress(image(f).read_bytes())), B, ("T1w.nii and .*T1w.nii.gz; keep one",)),
    "an unpacked copy of a mask": Odd(lambda f: mask(f, "label-spleen_mask.nii").write_bytes(gzip.decompress(mask(f).read_bytes())), B, ("both show 'spleen'",)),
    "masks of two raters": Odd(lambda f: shutil.copy(mask(f), mask(f, "label-spleen_desc-two_mask.nii.gz")), B, ("both show 'spleen'; keep one",)),
    "a link that leads nowhere": Odd(lambda f: link(mask(f), "nowhere"), B, ("no such file",)),
    "an image that was not downloaded": Odd(lambda f: link(image(f), "nowhere"), B, ("no such file",)),
    "a file that was cut off": Odd(lambda f: image(f).write_bytes(image(f).read_bytes()[:90]), B, ("not a readable NIfTI file",)),
    "a link to the folder of a subject": Odd(lambda f: moved_and_linked(f / "sub-a", f.parent / "elsewhere")),
    "a link that leads back": Odd(lambda f: (f / "sub-a/again").symlink_to(f)),
    "an entity that occurs twice": Odd(lambda f: image(f).rename(image(f, "run-1_run-2_T1w.nii.gz")), B, ("does not follow BIDS",)),
    "images before their conversion": Odd(lambda f: shutil.copytree(f / "sub-a", f / "sourcedata/sub-a")),
    "no description, broken sidecars": Odd(lambda f: image(f, "T1w.json").write_text("{")),
    "no names of values": Odd(lambda f: (label_map("")(f), mask(f, "dseg.tsv").unlink()), B, ("no _dseg.tsv names its values",)),
    "a value with two names": Odd(label_map("index\tname\n1\tliver\n1\tspleen\n"), B, ("already has the name 'liver'",)),
    "a value without a name": Odd(label_map("index\tname\n1\tliver\n"), B, ("label values 2, which belong to no target; name them in its _dseg.tsv",)),
    "values as fractions": Odd(label_map("index\tname\n1.0\tliver\n2.0\tspleen\n")),
    "a participant in two splits": Odd(participants("participant_id\tsplit\nsub-a\ttrain\na\ttest\n"), B, ("line 3: subject 'a' is already in the split train",)),
    "participants with commas": Odd(participants("participant_id,split\na,train\n"), error="separated by commas"),
    "participants of an unknown split": Odd(participants("participant_id\tsplit\na\tsome\n"), B, ("split 'some' is unknown",)),
}  # fmt: skip


@pytest.mark.parametrize("odd", BIDS.values(), ids=BIDS)
def test_odd_bids_folder(odd: Odd, tmp_path: Path):
    folder = tmp_path / "bids"
    for subject in "ab":
        PHANTOM.write_image(folder / f"sub-{subject}/anat/sub-{subject}_T1w.nii.gz")
        place = folder / f"derivatives/m/sub-{subject}/anat/sub-{subject}_label-spleen_mask.nii.gz"
        PHANTOM.write_mask(place, 1)
    odd.change(folder)
    check(odd, lambda: read_bids_listing(folder).cases, folder)


def test_masks_of_a_session_belong_to_all_of_its_runs_unless_they_name_one(tmp_path: Path):
    anatomy = tmp_path / "sub-ä 1/ses-1/anat/sub-ä 1_ses-1"
    for run in "12":
        PHANTOM.write_image(anatomy.with_name(f"{anatomy.name}_run-{run}_T1w.nii.gz"))
    derived = tmp_path / "derivatives/sub-ä 1/ses-1/anat" / anatomy.name
    PHANTOM.write_mask(derived.with_name(f"{derived.name}_label-spleen_mask.nii.gz"), 1)
    PHANTOM.write_mask(derived.with_name(f"{derived.name}_run-2_label-liver_mask.nii.gz"), 2)
    found, reasons = read_cases(read_bids_listing(tmp_path).cases)
    targets = [{t for annotation in case.annotations for t in annotation.targets} for case in found]
    assert targets == [{"spleen"}, {"spleen", "liver"}]
    assert not reasons


# nnU-Net


def scan(folder: Path, channel: int = 0) -> Path:
    return folder / f"imagesTr/a_{channel:04d}.nii.gz"


def labels(folder: Path) -> Path:
    return folder / "labelsTr/a.nii.gz"


def description(**changes: Any) -> Callable[[Path], Any]:
    return lambda folder: (folder / "dataset.json").write_text(json.dumps(VERSION_1 | changes))


def copies_for_testing(folder: Path) -> None:
    for name in ("images", "labels"):
        shutil.copytree(folder / f"{name}Tr", folder / f"{name}Ts")


NNUNET = {
    "a smaller label map": Odd(lambda f: edit(labels(f), lambda a: a[:-2]), B, ("has the size .*give labels of the whole image",)),
    "a larger label map": Odd(lambda f: edit(labels(f), lambda a: np.pad(a, ((0, 2), (0, 0), (0, 0)))), B, ("has the size",)),
    "an undefined label": Odd(lambda f: edit(labels(f), lambda a: np.where(a == 1, 9, a)), B, ("label values 9, which belong to no target; name them in .*dataset.json",)),
    "a missing label map": Odd(lambda f: labels(f).unlink(), B, ("it has no label map",)),
    "a missing image": Odd(lambda f: scan(f).unlink(), B, ("no such file",)),
    "a broken label map": Odd(lambda f: labels(f).write_bytes(labels(f).read_bytes()[:60]), B, ("not a readable NIfTI file",)),
    "a channel that is not named": Odd(lambda f: shutil.copy(scan(f), scan(f, 1)), B, ("has images of 2 channels, but dataset.json names 1",)),
    "a missing channel": Odd(lambda f: (description(modality={"0": "CT", "1": "PET"})(f), shutil.copy(scan(f), scan(f, 1))), ("a",), ("b_0001.nii.gz: no such file",)),
    "an ending without its dot": Odd(description(file_ending="nii.gz")),
    "a channel without a name": Odd(description(modality={"0": None})),
    "a case for training and testing": Odd(lambda f: (copies_for_testing(f), (f / "labelsTs/b.nii.gz").unlink()), B, ("is in labelsTr and in labelsTs",)),
    "only cases for training and testing": Odd(copies_for_testing, error="no case can be used; the first one: a: is in labelsTr and in labelsTs"),
    "the folder above": Odd(lambda f: shutil.move(write_nnunet(f.parent / "x", VERSION_1, ()), f / "Dataset002_X") and (f / "dataset.json").unlink(), error="but Dataset002_X do; give one"),
    "labels as a list": Odd(description(labels=["background", "liver"]), error="field 'labels' is missing or empty, or not an object"),
    "labels in words": Odd(description(labels={"liver": "one"}), error="need whole numbers"),
    "a case without file names": Odd(description(dataset={"a": {"images": [None], "label": None}, "b": {"images": ["imagesTr/b_0000.nii.gz"], "label": "labelsTr/b.nii.gz"}}), B, ("needs a list 'images' of file names",)),
    "a case with one file name": Odd(description(dataset={"a": {"images": "imagesTr/a_0000.nii.gz", "label": "labelsTr/a.nii.gz"}}), ("a",)),
}  # fmt: skip


@pytest.mark.parametrize("odd", NNUNET.values(), ids=NNUNET)
def test_odd_nnunet_folder(odd: Odd, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("tests.data.own.test_layouts.PHANTOM", PHANTOM)
    folder = write_nnunet(tmp_path / "set", VERSION_1, ("a", "b"))
    odd.change(folder)
    named = "liver tumour" in (folder / "dataset.json").read_text() if not odd.error else True
    found = check(
        odd, lambda: read_nnunet_listing(folder, renames=RENAMES if named else None)[0].cases, folder
    )
    assert all(image.modality in ("CT", "PET", "") for case in found for image in case.images)


def test_a_report_that_cannot_be_read_is_refused_and_the_others_are_used(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("tests.data.own.test_layouts.PHANTOM", PHANTOM)
    folder = write_nnunet(tmp_path / "set", VERSION_1, ("a", "b"))
    files = {"a": "Die Leber ist groß.".encode("cp1252"), "b": b"The liver is large.", "zz": b"Another."}
    for name, content in files.items():
        write_bytes(folder / f"reports/{name}.txt", content)
    listing, reports = read_nnunet_listing(folder, renames=RENAMES, reports=folder / "reports")
    assert [str(row) for row in listing.refused] == [
        "a.txt: line 1 is not UTF-8 (invalid continuation byte); save the file as UTF-8",
        "zz.txt: belongs to no case of the data set; name it as the case",
    ]
    assert len(listing.cases) == 2
    assert reports is not None
    assert [isinstance(case, Case) for case in reports.cases] == [False, True]
    (folder / "reports/b.txt").unlink()
    with pytest.raises(VividMedError, match=r"no report belongs to a case .*a\.txt: line 1 is not UTF-8"):
        read_nnunet_listing(folder, renames=RENAMES, reports=folder / "reports")


def test_reports_of_unknown_cases_second_reports_and_a_stated_number_of_cases_are_named(
    tmp_path: Path, monkeypatch
):
    monkeypatch.setattr("tests.data.own.test_layouts.PHANTOM", PHANTOM)
    folder = write_nnunet(tmp_path / "set", VERSION_1 | {"numTraining": 30}, ("a", "b"))
    named = ["a", "a", "zz", "", "b"]
    path = write_table(
        folder / "reports.csv", [{"case": n, "report": "The liver is large." * (n != "b")} for n in named]
    )
    listing, reports = read_nnunet_listing(folder, renames=RENAMES, reports=path)
    assert [row.row for row in listing.refused] == [3, 4, 5]
    assert reports is not None
    assert [isinstance(case, Case) for case in reports.cases] == [True, False]
    assert listing.notes == ("dataset.json states 30 cases for training, but 2 have labels",)
