"""Predicting single scans, and the rows of a data set, with a small random model."""

import json

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image

from tests.fixtures.dicom_files import write_series
from tests.fixtures.paths import REPOSITORY
from vividmed import VividMedError
from vividmed.data.masks import pack_mask
from vividmed.data.schema import SCHEMAS
from vividmed.inference.predicting import predict_rows
from vividmed.inference.predictor import Predictor
from vividmed.inference.results import describe, save_result
from vividmed.metrics.predictions import PredictionWriter, predicted_ids, read_predictions
from vividmed.metrics.protocol import Protocol, protocol_names
from vividmed.metrics.scoring import score

MODEL = REPOSITORY / "tests" / "fixtures" / "checkpoints" / "556ac31" / "model"


@pytest.fixture(scope="module")
def predictor():
    return Predictor(MODEL, device="cpu")


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scan") / "series"
    volume = np.random.default_rng(0).integers(0, 500, (4, 24, 24)).astype(np.int16)
    study = {"StudyInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.2.4"}
    write_series(folder, volume, RescaleSlope=1, RescaleIntercept=-200, SliceThickness=2.5, **study)
    return folder


@pytest.mark.parametrize(
    "options",
    [
        {"task": "report"},
        {"task": "report", "full_resolution": True},
        {"task": "vqa", "prompt": "What is the modality?"},
        {"task": "segment", "targets": ["left kidney", " spleen"]},
        {"task": "ground", "text": "A small<p> mass</p> in the liver."},
        {"task": "ground", "text": "No fracture. There is a small pleural effusion."},
    ],
    ids=lambda options: "-".join(map(str, options.values()))[:20],
)
def test_every_task_gives_a_text_whose_phrases_stand_in_it(predictor, series, options):
    result = predictor(series, max_new_tokens=6, **options)
    assert result.image.size == (4, 24, 24)
    for phrase in result.grounded.phrases:
        assert result.grounded.text[phrase.start : phrase.end] == phrase.text
    expected = {"segment": ["left kidney", "spleen"]}.get(options["task"])
    if expected:
        assert [phrase.text for phrase in result.grounded.phrases] == expected
    if options["task"] == "ground":
        wanted = "mass" if "<p>" in options["text"] else "small pleural effusion"
        assert [phrase.text for phrase in result.grounded.phrases] == [wanted]
    json.dumps(describe(result))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "vqa"}, "needs a prompt"),
        ({"task": "segment", "targets": ["", " "]}, "needs targets"),
        (
            {"task": "segment", "targets": ["liver", "left kidny"]},
            "left kidny.*unknown; did you mean left kidney",
        ),
        ({"task": "segment", "targets": ["unobtainium"]}, "unobtainium.*unknown; name a structure"),
        ({"task": "ground"}, "needs the text"),
        ({"task": "ground", "text": "Nothing to see."}, "names nothing"),
        ({"task": "translate"}, "unknown"),
        ({"task": "report", "targets": ["liver"]}, "report does not use targets.*use task segment"),
        ({"task": "segment", "targets": ["liver"], "prompt": "Where?"}, "segment does not use prompt"),
        ({"task": "report", "text": "A mass."}, "report does not use text.*use task ground"),
        ({"task": "vqa", "prompt": "Why?", "full_resolution": True}, "vqa does not use full_resolution"),
    ],
)
def test_what_a_task_lacks_or_does_not_use_is_named_before_the_scan_is_read(predictor, options, message):
    with pytest.raises(VividMedError, match=message):
        predictor("absent.nii.gz", **options)


def test_a_result_is_written_in_every_format_with_its_index_last(predictor, series, tmp_path):
    result = predictor(series, task="segment", targets=["liver"])
    phrase = result.grounded.phrases[0]
    mask = np.zeros(result.image.size, dtype=bool)
    mask[1:3, 4:9, 4:9] = True
    object.__setattr__(phrase, "mask", mask)
    formats = ("png", "html", "nifti", "dicom-sr")
    save_result(result, tmp_path / "out", formats=formats, run={"model": "m"})
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"result.json", "overlay.png", "report.html", "masks", "segmentation.dcm", "report.dcm"}
    content = json.loads((tmp_path / "out" / "result.json").read_text())
    assert content["phrases"][0]["measured"]["volume_ml"] == pytest.approx(50 * 2.5 * 0.8 * 0.7 / 1000)
    assert "diagnosis" in content["notice"]


def rows(task):
    pixels = np.random.default_rng(0).integers(0, 255, (20, 24)).astype(np.uint8)
    mask = np.zeros((1, 20, 24), dtype=bool)
    mask[:, 2:9, 3:12] = True
    common = {
        "images": [Image.fromarray(pixels)],
        "volumes": [],
        "modality": "X-ray",
        "source": "s",
        "licence": "l",
    }
    records = []
    for number in range(3):
        row = {"id": f"row-{number}", "patient": f"p{number}", **common}
        packed = [pack_mask("liver", mask)]
        if task in ("vqa", "report"):
            turns = (
                [("Modality?", "X-ray."), ("Liver?", "Yes.")] if task == "vqa" else [("Report?", "A mass.")]
            )
            messages = [
                {"role": role, "content": text}
                for turn in turns
                for role, text in zip(("user", "assistant"), turn, strict=True)
            ]
            row |= {"plane": "", "messages": messages, "kind": "modality" if task == "vqa" else "report"}
        elif task == "ground":
            row |= {
                "targets": ["liver"],
                "absent": ["spleen"],
                "masks": packed,
                "boxes": [],
                "incomplete": [],
            }
        else:
            phrase = {"text": "liver", "start": 4, "end": 9, "targets": ["liver"]}
            row |= {
                "report": "The<p> liver</p>.",
                "phrases": [phrase],
                "masks": packed,
                "boxes": [],
                "incomplete": [],
            }
        records.append(row)
    kind = {"vqa": "vision_language", "report": "vision_language", "ground": "localization"}.get(
        task, "grounded_report"
    )
    return Dataset.from_list(records, features=SCHEMAS[kind])


def predict(predictor, folder, task, rows):
    with PredictionWriter(folder) as writer:
        return predict_rows(
            predictor.model,
            predictor.processor,
            rows,
            task=task,
            protocol=Protocol.load("default"),
            writer=writer,
            done=predicted_ids(folder),
            batch_size=2,
        )


@pytest.mark.parametrize(
    ("task", "items"), [("vqa", 6), ("report", 3), ("ground", 3), ("grounded-report", 3)]
)
def test_rows_are_predicted_once_and_can_be_scored(predictor, tmp_path, monkeypatch, task, items):
    protocol = Protocol.load("default")
    monkeypatch.setattr(Protocol, "load", classmethod(lambda cls, name: short(protocol)))
    assert predict(predictor, tmp_path, task, rows(task)) == items
    assert predict(predictor, tmp_path, task, rows(task)) == 0
    predictions = read_predictions(tmp_path)
    assert [prediction.failure for prediction in predictions] == [None] * items
    if task == "ground":
        assert [reference.target for reference in predictions[0].references] == ["liver", "spleen"]
        assert predictions[0].references[0].mask is not None
        assert predictions[0].references[1].mask is None
    scores = score(predictions, samples=10)
    assert scores.figures
    assert scores.items == items


def short(protocol):
    return Protocol(**{**vars(protocol), "max_new_tokens": 4})


def test_a_row_that_cannot_be_read_is_a_failure_and_the_others_are_predicted(
    predictor, tmp_path, monkeypatch
):
    protocol = Protocol.load("default")
    monkeypatch.setattr(Protocol, "load", classmethod(lambda cls, name: short(protocol)))
    good = list(rows("report"))
    broken = {**good[1], "images": [{"bytes": b"not an image", "path": None}]}
    assert predict(predictor, tmp_path, "report", [good[0], broken, good[2]]) == 3
    failures = {prediction.id: prediction.failure for prediction in read_predictions(tmp_path)}
    assert failures["row-0"] is None
    assert "images[0]" in failures["row-1"]
    assert predicted_ids(tmp_path) == {"row-0", "row-2"}


@pytest.mark.parametrize(("grids", "missed"), [(None, 0), ([{"size": [1, 20, 24], "spacing": [1.0] * 3}], 1)])
def test_masks_of_an_image_that_cannot_be_read_are_missed_if_its_grid_is_known(
    predictor, tmp_path, grids, missed
):
    row = {**rows("ground")[0], "images": [{"bytes": b"not an image", "path": None}], "grids": grids}
    assert predict(predictor, tmp_path, "ground", [row]) == 1
    (prediction,) = read_predictions(tmp_path)
    assert prediction.failure
    scores = score([prediction], samples=2)
    assert (scores.failures, scores.counts.get("dice", 0)) == (1, missed)
    assert scores.figures["dice"].value == 0 if missed else "dice" not in scores.figures


@pytest.mark.parametrize("name", protocol_names())
def test_protocols_of_the_package_load(name):
    assert Protocol.load(name).name == name


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: 1", "description is missing"),
        ("[", "cannot be read"),
        (
            "description: d\nreport_prompt: p\nmax_new_tokens: many\nkeep_markers: false\ndrop_last_image: false",
            "max_new_tokens",
        ),
    ],
)
def test_a_protocol_that_is_wrong_is_one_clear_error(tmp_path, content, message):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(VividMedError, match=message):
        Protocol.load(path)
