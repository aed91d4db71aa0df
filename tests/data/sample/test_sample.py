"""The sample built from the real images: every answer is recomputed from the masks of its image.

The first run on a machine fetches the archives through pip and builds the sample; later ones find it in the cache.
"""

import re
from collections import Counter
from functools import cache
from typing import Any

import datasets
import numpy as np
import pytest
from datasets import Image, List, Nifti, load_dataset

from vividmed.data.batches.examples import read_images, to_example
from vividmed.data.image_grids import check_grids
from vividmed.data.masks import unpack_mask
from vividmed.data.sample import KINDS, load_sample, sample_folder
from vividmed.data.sample.targets import BODY, UNREPORTED
from vividmed.data.schema import prepared_schema, validate_row
from vividmed.errors import VividMedError

SPLITS = ("train", "test")


@cache
def rows(kind: str, split: str) -> list[dict[str, Any]]:
    """Rows with images left encoded."""
    encoded = load_sample(kind, split)
    encoded = encoded.cast_column("images", List(Image(decode=False)))
    return list(encoded.cast_column("volumes", List(Nifti(decode=False))))


@cache
def located() -> dict[str, dict[str, Any]]:
    """View name to its localization row."""
    return {
        row["id"].removesuffix("-localization"): row
        for split in SPLITS
        for row in rows("localization", split)
    }


def view_of(row: dict[str, Any]) -> str:
    return row["id"].rsplit("-", 2 if "kind" in row else 1)[0]


def masks_of(row: dict[str, Any]) -> dict[str, np.ndarray]:
    (image,) = read_images(row)
    return {mask["target"]: unpack_mask(mask, image.size) for mask in row["masks"]}


def question(row: dict[str, Any]) -> str:
    return row["messages"][0]["content"]


def answer(row: dict[str, Any]) -> str:
    return row["messages"][1]["content"]


def of_kind(kind: str, split: str | None = None) -> list[dict[str, Any]]:
    """Each question of a kind as a row of its own."""
    return [
        {**row, "kind": kind, "messages": row["messages"][2 * turn : 2 * turn + 2]}
        for s in SPLITS
        if split in (None, s)
        for row in rows("vision_language", s)
        for turn, turn_kind in enumerate(row["kind"].split("+"))
        if turn_kind == kind
    ]


def asked_target(row: dict[str, Any]) -> str:
    match = re.fullmatch(r"Is (?:the|a) ([\w ]+) visible in this image\?", question(row))
    assert match
    return match[1]


def presence(split: str) -> list[tuple[str, str]]:
    """Target and answer of each presence question; one that two conversations about an image ask counts once."""
    asked = {(view_of(row), asked_target(row), answer(row)) for row in of_kind("presence", split)}
    return [(target, said) for _, target, said in sorted(asked)]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_load_without_code_of_this_project(kind):
    plain = load_dataset("parquet", data_dir=str(sample_folder() / kind))
    assert set(plain) == set(SPLITS)
    for split in SPLITS:
        assert plain[split].features == prepared_schema(kind)
        assert len(plain[split]) == len(rows(kind, split))
        assert plain[split].column_names == list(prepared_schema(kind))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", SPLITS)
def test_every_row_is_valid_and_names_its_source_and_licence(kind, split):
    names = Counter(row["id"] for row in rows(kind, split))
    assert max(names.values()) == 1
    for row in rows(kind, split):
        validate_row(kind, row)
        assert re.match(r"[\w-]+==[\d.]+: \S+", row["source"])
        if row["modality"] == "X-ray" and "pydicom" not in row["source"]:
            assert "projected from CT" in row["source"]


def test_decoded_rows_fit_their_masks():
    for kind in ("localization", "grounded_report"):
        for row in load_sample(kind, "test"):
            validate_row(kind, row)
            check_grids(row["grids"], read_images(row))


def test_unknown_kind_and_split_are_refused():
    with pytest.raises(VividMedError, match="unknown kind 'vqa'"):
        load_sample("vqa")  # type: ignore[call-overload]
    with pytest.raises(VividMedError, match="unknown split 'validation'"):
        load_sample("localization", "validation")


def test_the_sample_lies_in_the_datasets_cache_and_is_small():
    folder = sample_folder()
    assert folder.is_relative_to(datasets.config.HF_DATASETS_CACHE)
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 80e6


def test_no_patient_is_in_both_splits():
    patients = {split: {row["patient"] for kind in KINDS for row in rows(kind, split)} for split in SPLITS}
    assert not patients["train"] & patients["test"]
    assert len(patients["train"]) >= 12
    assert len(patients["test"]) >= 5


def test_both_splits_mix_2d_and_3d_and_all_modalities():
    for split in SPLITS:
        modalities = Counter(
            (row["modality"], bool(row["volumes"])) for row in rows("vision_language", split)
        )
        assert set(modalities) == {
            ("CT", False),
            ("CT", True),
            ("MRI", False),
            ("MRI", True),
            ("X-ray", False),
            ("ultrasound", False),
        }
        for row in rows("vision_language", split):
            assert len(row["images"]) + len(row["volumes"]) == 1


def test_the_size_is_as_planned():
    assert 500 <= len(rows("vision_language", "train")) <= 800
    assert 130 <= len(rows("vision_language", "test")) <= 230
    least = {"modality": 30, "plane": 30, "presence": 80}
    for kind, number in least.items():
        assert len(of_kind(kind, "test")) >= number


def test_labels_by_rule_say_so():
    lungs, bone = {"lung-ct-a", "lung-ct-b", "chest-ct-b"}, {"lung-ct-a", "lung-ct-b"}
    for row in located().values():
        by_rule = re.search(r", ([\w ,]+) labelled by rule", row["source"])
        names = set(re.split(", | and ", by_rule[1])) if by_rule else set()
        scanned = row["modality"] == "CT" or "projected from CT" in row["source"]
        assert (BODY in names) == scanned
        assert ("lungs" in names) == (row["patient"] in lungs)
        assert ("bone" in names) == (row["patient"] in bone)


def test_the_body_contains_every_organ_and_bone_is_in_both_splits():
    patients: dict[str, set[str]] = {}
    for row in located().values():
        if row["volumes"] and row["modality"] == "CT":
            masks = masks_of(row)
            for target, mask in masks.items():
                patients.setdefault(target, set()).add(row["patient"])
                assert not (mask & ~masks.get(BODY, mask)).any()
    assert patients["bone"] == {"chest-ct-a", "abdomen-ct-a", "lung-ct-a", "lung-ct-b", "abdomen-ct-b"}
    assert patients[BODY] == {*patients["bone"], "chest-ct-b"}


def test_what_the_test_split_asks_for_is_learnt_in_the_training_split():
    for kind in ("modality", "plane"):
        assert {answer(row) for row in of_kind(kind, "test")} <= {
            answer(row) for row in of_kind(kind, "train")
        }
    assert set(presence("test")) <= set(presence("train"))
    labelled: dict[str, set[str]] = {}
    for row in rows("localization", "train"):
        for target in (*row["targets"], *row["absent"]):
            labelled.setdefault(target, set()).add(row["patient"])
    for split in SPLITS:
        assert min(len(labelled[target]) for target, _ in presence(split)) > 1


def test_guessing_from_the_question_only_does_not_pay():
    for split in SPLITS:
        by_target = Counter(presence(split))
        targets = {target for target, _ in by_target}
        assert len(targets) >= 6
        for target in targets:
            assert by_target[target, "Yes."] == by_target[target, "No."]
        for kind in ("modality", "plane"):
            answers = Counter(answer(row) for row in of_kind(kind, split))
            assert max(answers.values()) <= 0.45 * answers.total()


def test_modality_and_plane_answers_are_those_of_the_row():
    for row in of_kind("modality"):
        assert answer(row) == f"{row['modality']}."
    for row in of_kind("plane"):
        assert ("view" if row["modality"] == "X-ray" else "plane") in question(row)
        assert answer(row) == f"{row['plane'].capitalize()}."
        assert row["images"]


def test_presence_answers_follow_from_the_masks():
    checked = 0
    for row in of_kind("presence"):
        truth = located().get(view_of(row))
        if truth is None:
            # Images that are only asked about have no masks here; test_sample_views.py checks such answers.
            assert "-asked-" in view_of(row) or row["modality"] == "X-ray"
        else:
            assert asked_target(row) in truth["targets" if answer(row) == "Yes." else "absent"]
            checked += 1
    assert checked > 150


def test_findings_follow_from_the_masks():
    checked: Counter[str] = Counter()
    for row in of_kind("finding"):
        truth = located()[view_of(row)]
        (image,) = read_images(truth)
        masks, text = masks_of(truth), answer(row)
        sizes = {target: int(mask.sum()) for target, mask in masks.items()}
        if match := re.fullmatch(r"The (.+) is on the (left|right) side of the body\.", text):
            columns = np.argwhere(masks[match[1]])[:, 2]
            middle = image.size[2] / 2
            assert (columns.mean() < middle) == (match[2] == "right")
            checked["side"] += 1
        elif match := re.fullmatch(r"The (.+) measures (\d+) x (\d+) x (\d+) mm \(.+\)\.", text):
            voxels = np.argwhere(masks[match[1]])
            extent = (np.ptp(voxels, axis=0) + 1) * image.spacing
            np.testing.assert_allclose([int(match[i]) for i in (4, 3, 2)], extent, atol=0.51)
            checked["size"] += 1
        elif match := re.fullmatch(r"The volume of the (.+) within this image is ([\d.]+) ml\.", text):
            millilitres = sizes[match[1]] * np.prod(image.spacing) / 1000
            assert float(match[2]) == pytest.approx(millilitres, abs=0.51 if millilitres >= 10 else 0.051)
            checked["volume"] += 1
        elif match := re.fullmatch(r"The (.+) takes up more of this image\.", text):
            (other,) = [t for t in sizes if f"the {t}" in question(row) and t != match[1]]
            assert sizes[match[1]] > 1.9 * sizes[other]
            checked["larger"] += 1
        else:
            match = re.fullmatch(r"(No|One|Two) (kidney|lung)s? (?:is|are) visible(?:, the (.+))?\.", text)
            assert match, text
            pair = {f"{side} {match[2]}" for side in ("left", "right")}
            assert pair <= {*truth["targets"], *truth["absent"]}
            seen = pair & set(truth["targets"])
            assert len(seen) == ("No", "One", "Two").index(match[1])
            assert match[3] is None or seen == {match[3]}
            checked["count"] += 1
    assert set(checked) == {"side", "size", "volume", "larger", "count"}


def test_reports_follow_from_the_masks():
    denied = 0
    for split in SPLITS:
        for row in rows("grounded_report", split):
            truth = located()[view_of(row)]
            named = {target for phrase in row["phrases"] for target in phrase["targets"]}
            assert named == {mask["target"] for mask in row["masks"]} <= set(truth["targets"]) - UNREPORTED
            for sentence in re.findall(r"(?:The|No) [^.]*? (?:is|are) (?:not )?seen\.", row["report"]):
                listed = re.sub(r"^No |\b[Tt]he | (is|are) (not )?seen\.", "", sentence)
                unseen = re.split(r", | and ", listed)
                assert set(unseen) <= set(truth["absent"]), sentence
                denied += len(unseen)
    for row in of_kind("report"):
        report = next(r for s in SPLITS for r in rows("grounded_report", s) if view_of(r) == view_of(row))
        assert report["report"].replace("<p>", "").replace("</p>", "") == answer(row)
    assert denied > 100


def test_heart_and_spleen_are_left_and_the_liver_is_right():
    sides: Counter[tuple[str, str, bool]] = Counter()
    for row in located().values():
        if row["patient"].startswith(("brain", "breast")):
            continue
        (image,) = read_images(row)
        masks = masks_of(row)
        if row["volumes"]:
            # In RAS+ millimetres, x grows to the right.
            right = {t: (image.affine @ [*np.argwhere(m).mean(0)[::-1], 1])[0] for t, m in masks.items()}
        elif "lateral" in row["id"] or "sagittal" in row["id"]:
            continue
        else:
            right = {target: -np.argwhere(mask)[:, 2].mean() for target, mask in masks.items()}
        for a, b in [
            ("heart", "right lung"),
            ("spleen", "liver"),
            ("left kidney", "right kidney"),
            ("left lung", "right lung"),
            ("left femur", "right femur"),
        ]:
            if a in right and b in right:
                sides[a, b, right[a] < right[b]] += 1
    assert not [key for key in sides if not key[2]]
    assert len(sides) == 5
    assert sides["spleen", "liver", True] >= 20


def test_masks_lie_on_what_they_name():
    """Intensities inside the masks: air in lungs, soft tissue in organs, so no mask is flipped or shifted."""
    values: dict[str, list[float]] = {}
    for row in located().values():
        if row["modality"] == "CT" and row["volumes"]:
            (image,) = read_images(row)
            for target, mask in masks_of(row).items():
                values.setdefault(target, []).append(float(np.median(image.array[0][mask])))
    assert max(values["left lung"] + values["right lung"]) < -700
    for organ in ("liver", "spleen", "heart", "aorta", "left kidney", "right kidney"):
        assert min(values[organ]) > 0
    assert min(values["liver"]) > 40
    for bone in ("bone", "left hip bone", "right femur"):
        assert min(values[bone]) > 130
    assert min(values["bladder"]) > -30 < max(values["bladder"]) < 60


def test_projected_lungs_are_darker_than_the_projected_heart():
    compared = 0
    for name, row in located().items():
        masks = masks_of(row)
        if "-frontal-" in name and {"heart", "left lung", "right lung"} <= set(masks):
            (image,) = read_images(row)
            lungs = (masks["left lung"] | masks["right lung"]) & ~masks["heart"]
            assert image.array[0][masks["heart"]].mean() > image.array[0][lungs].mean() + 20
            compared += 1
    assert compared >= 5


def test_boxes_are_those_of_the_masks():
    lesions = 0
    for row in located().values():
        masks = masks_of(row)
        for target, mask in masks.items():
            boxes = np.array([box["box"] for box in row["boxes"] if box["target"] == target])
            voxels = np.argwhere(mask)
            assert boxes[:, :3].min(0).tolist() == voxels.min(0).tolist()
            assert boxes[:, 3:].max(0).tolist() == (voxels.max(0) + 1).tolist()
            lesions += len(boxes) > 1
    assert lesions, "a tumour of several parts has several boxes"


def test_absent_targets_and_targets_are_apart():
    for row in located().values():
        assert not set(row["targets"]) & set(row["absent"])
        assert set(row["targets"]) == set(masks_of(row))


def test_examples_are_what_the_processor_takes():
    for split in SPLITS:
        for row in rows("vision_language", split)[::25]:
            example = to_example(row)
            roles = [turn["role"] for turn in example["messages"]]
            assert roles == ["user", "assistant"] * (len(roles) // 2)
            (image,) = example["images"]
            assert image.oriented == bool(row["volumes"])
            assert image.array.std() > 0
