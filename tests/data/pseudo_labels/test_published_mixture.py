"""The published mixture of stage grg, made from miniatures of the original data sets without any label of ours."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest

# The miniatures register themselves when their modules are imported.
from tests.data.adapters import test_ct_rate, test_mimic_cxr  # noqa: F401
from tests.fixtures.paths import REPOSITORY
from tests.fixtures.prepared_miniatures import MINIATURES
from vividmed.cli.main import main
from vividmed.data.sampling.mixture import load_mixture, sample_conversations
from vividmed.data.terms import read_terms

# Category, left edge as a part of the image, score; the patient's left is on the right of the image.
FOUND = ((1, 0.6, 0.8), (1, 0.1, 0.7), (2, 0.4, 0.9), (2, 0.4, 0.01))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Plain rows of MIMIC-CXR and CT-RATE."""
    return {name: MINIATURES[name].prepared(tmp_path_factory) for name in ("mimic-cxr", "ct-rate")}


def write_boxes(path, rows):
    """Boxes as a detector of chest radiographs writes them, for every image."""
    images, annotations = [], []
    for row in rows:
        for number, picture in enumerate(row["images"]):
            names = {"id": len(images) + 1, "file_name": f"{row['id'].partition(':')[2]}_{number}.jpg"}
            # The detector finds nothing in one study, which becomes a row without a finding.
            found = () if "s50000002" in row["id"] else FOUND
            images.append(names | {"width": picture.size[0], "height": picture.size[1]})
            for category, x, score in found:
                box = [
                    x * picture.size[0],
                    0.5 * picture.size[1],
                    0.2 * picture.size[0],
                    0.3 * picture.size[1],
                ]
                annotations.append(
                    {"image_id": len(images), "category_id": category, "bbox": box, "score": score}
                )
    categories = [{"id": 1, "name": "Pleural effusion"}, {"id": 2, "name": "Cardiomegaly"}]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


def write_masks(folder, rows):
    """Masks as SAT writes them: one file per name."""
    for row in rows:
        volume = row["volumes"][0]
        case = folder / row["id"].partition(":")[2]
        case.mkdir(parents=True)
        for place, name in enumerate(("trachea", "lung nodule")):
            mask = np.zeros(volume.shape, dtype=np.uint8)
            mask[2 + 4 * place : 5 + 4 * place, 2:5, 2:5] = 1
            nib.save(nib.Nifti1Image(mask, volume.affine), case / f"{name}.nii.gz")


def step(name, source, output, *arguments):
    assert main(["ground-reports", name, "--input", str(source), "--output", str(output), *arguments]) == 0


def test_the_published_mixture_is_built_from_the_original_sets(prepared, tmp_path):
    sizes = tmp_path / "sizes.json"
    sizes.write_text("{}")  # the scans are miniatures, and so are their organs
    places = {
        "mimic-cxr": ["--boxes", str(tmp_path / "boxes.json")],
        "ct-rate": ["--masks", str(tmp_path / "masks"), "--names", "sat", "--organ-sizes", str(sizes)],
    }
    rows = {name: [r for split in each.splits.values() for r in split] for name, each in prepared.items()}
    write_boxes(tmp_path / "boxes.json", rows["mimic-cxr"])
    write_masks(tmp_path / "masks", rows["ct-rate"])
    for name, each in prepared.items():
        work, source = tmp_path / name, each.result.output
        for text_step in ("clean", "tag", "filter"):
            step(text_step, source, work / text_step)
            source = work / text_step
        step("localize", source, work / "localize", *places[name])
        step("rows", work / "localize", tmp_path / "root" / f"{name}-grounded")
    mixtures = tmp_path / "mixtures"
    shutil.copytree(REPOSITORY / "stages/configs/mixtures", mixtures)
    mixture = load_mixture(str(mixtures / "grg.yaml"), root=str(tmp_path / "root"))
    samples = list(sample_conversations(mixtures / "grg.yaml", 20, root=str(tmp_path / "root")))
    assert any(phrase.label_type for sample in samples for phrase in sample.conversation.phrases)
    seen = {mixture[index]["id"].partition(":")[0] for index in range(len(mixture))}
    assert seen == {"mimic-cxr", "ct-rate"}
    found = [mixture[index] for index in range(len(mixture))]
    radiograph = next(row for row in found if row["id"].startswith("mimic-cxr:s50000001"))
    assert {phrase["targets"][0] for phrase in radiograph["phrases"] if phrase["targets"]} >= {"cardiomegaly"}
    scan = next(row for row in found if row["id"] == "ct-rate:train_1_a_1")
    assert {mask["target"] for mask in scan["masks"]} == {"trachea", "lung nodule"}
    for name, access in (("mimic-cxr", "credentialed"), ("ct-rate", "registered")):
        assert read_terms(tmp_path / "root" / f"{name}-grounded").access == access
    assert all("Compared" not in row["report"] for row in found)
