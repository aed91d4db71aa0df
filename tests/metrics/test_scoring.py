"""Folders of predictions, intervals, and tables of scores."""

import json

import numpy as np
import pytest

from tests.fixtures.miniatures import truncate
from vividmed.errors import VividMedError
from vividmed.metrics import selection
from vividmed.metrics.bootstrap import bootstrap, compare
from vividmed.metrics.detection import Detection
from vividmed.metrics.grounding import PhraseGrounding, RadFact
from vividmed.metrics.masks import encode_mask
from vividmed.metrics.predictions import (
    PlacedPhrase,
    Prediction,
    PredictionWriter,
    predicted_ids,
    read_predictions,
    unfinished,
)
from vividmed.metrics.reporting.plots import draw_plots
from vividmed.metrics.reporting.tables import to_csv, to_json, to_markdown
from vividmed.metrics.scoring import score, score_difference
from vividmed.metrics.vqa import Accuracy


def answers(number=20, right=lambda i: i % 2 == 0):
    return [
        Prediction(
            id=f"row-{i:02d}",
            patient=f"patient-{i // 4}",
            task="vqa",
            reference="yes",
            prediction="yes" if right(i) else "no",
        )
        for i in range(number)
    ]


def mask(width):
    found = np.zeros((1, 16, 16), dtype=bool)
    found[:, 2:8, 2 : 2 + width] = True
    return encode_mask(found)


def grounded():
    return [
        Prediction(
            id=f"scan-{i}",
            patient=f"patient-{i}",
            task="ground",
            size=[1, 16, 16],
            phrases=[
                PlacedPhrase(text="liver", mask=mask(6)),
                PlacedPhrase(text="mass", boxes=[[0, 2, 2, 1, 8, 8]], scores=[0.9]),
                PlacedPhrase(text="spleen"),
            ],
            references=[
                PlacedPhrase(text="liver", target="liver", mask=mask(3 + i)),
                PlacedPhrase(text="mass", target="mass", boxes=[[0, 2, 2, 1, 8, 8]]),
                PlacedPhrase(text="spleen", target="spleen"),
            ],
        )
        for i in range(4)
    ]


def repr_of(metric):
    return type(metric).__name__


def scored_items(metric, generator):
    """Items of random predictions, with ties of boxes and phrases without a place among them."""
    predictions = grounded() * 3
    for prediction in predictions:
        for phrase in prediction.phrases:
            number = int(generator.integers(3))
            low = generator.integers(0, 6, (number, 2))
            phrase.boxes = [[0, y, x, 1, y + 6, x + 6] for y, x in low.tolist()]
            phrase.scores = generator.random(number).tolist()
    if isinstance(metric, Accuracy):
        return metric.score_items(["yes", "no", "a", "b"] * 3, ["yes", "yes", "a", "a"] * 3)
    select = {Detection: selection.boxes, PhraseGrounding: selection.places, RadFact: selection.reports}
    selected = select[type(metric)](predictions)
    return metric.score_items(selected.predicted, selected.references)


def write(folder, predictions):
    with PredictionWriter(folder) as writer:
        for prediction in predictions:
            writer.write(prediction)


@pytest.mark.parametrize("predictions", [answers(), grounded()], ids=["answers", "grounded"])
def test_predictions_come_back_as_written(tmp_path, predictions):
    write(tmp_path, predictions)
    assert read_predictions(tmp_path) == predictions
    assert predicted_ids(tmp_path) == {prediction.id for prediction in predictions}


def test_lines_of_other_programs_need_only_an_id_a_patient_and_the_texts(tmp_path):
    line = {
        "id": "a",
        "patient": "p",
        "task": "vqa",
        "reference": "yes",
        "prediction": "Yes.",
        "modality": None,
    }
    (tmp_path / "predictions.jsonl").write_text(json.dumps(line) + "\n")
    (prediction,) = read_predictions(tmp_path)
    assert prediction.modality == ""
    assert score([prediction], samples=2).figures["accuracy"].value == 1


def test_a_killed_run_leaves_whole_lines_and_continues_after_them(tmp_path):
    write(tmp_path, answers(3))
    file = tmp_path / "predictions.jsonl"
    file.write_bytes(file.read_bytes()[:-30])
    assert predicted_ids(tmp_path) == {"row-00", "row-01"}
    write(tmp_path, answers(3)[2:])
    assert read_predictions(tmp_path) == answers(3)


def test_a_failure_is_replaced_by_a_later_success(tmp_path):
    failed = answers(1)[0]
    failed.failure = "the image cannot be read"
    write(tmp_path, [failed])
    assert predicted_ids(tmp_path) == set()
    write(tmp_path, answers(1))
    assert read_predictions(tmp_path) == answers(1)


def test_processes_write_files_of_their_own(tmp_path):
    for rank in range(2):
        with PredictionWriter(tmp_path, rank=rank, world_size=2) as writer:
            for prediction in answers(6)[rank::2]:
                writer.write(prediction)
    assert read_predictions(tmp_path) == answers(6)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1"),
        ('{"id": "a"}', "not a prediction"),
        ("[]", "not a prediction"),
        ("[" * 9000, "not a prediction"),
        ('{"id": "gr\udcf6"}', "line 1: not a prediction .*utf-8"),
        (
            '{"id": "a", "patient": "p", "task": "vqa", "reference": "x", "prediction": null}',
            "'prediction' is None",
        ),
        ('{"id": "a", "patient": 7, "task": "vqa"}', "'patient' is 7; it must be text"),
        ('{"id": "a", "patient": "p", "task": "cough"}', "unknown task 'cough'"),
        (
            '{"id": "a", "patient": "p", "task": "vqa", "later": 1}',
            "not a prediction of this version .*'later'",
        ),
        (
            '{"id": "a", "patient": "p", "task": "ground", "references": [{"text": "x"}]}',
            "0 phrases for 1 references",
        ),
        ("", "no predictions"),
    ],
)
def test_a_damaged_folder_is_one_clear_error(tmp_path, line, message):
    content = (line + "\n" if line else "").encode(errors="surrogateescape")
    (tmp_path / "predictions.jsonl").write_bytes(content)
    with pytest.raises(VividMedError, match=message) as caught:
        read_predictions(tmp_path)
    assert "\n" not in str(caught.value)


def broken_place(**changes):
    predictions = grounded()[:1]
    for name, value in changes.items():
        setattr(predictions[0].phrases[1], name, value)
    return predictions


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        (broken_place(boxes=[[0, 2, 2, 1, 8]]), "phrase 'mass': the box .* six finite numbers"),
        (broken_place(boxes=[[0, 2, 2, 1, 8, float("inf")]]), "six finite numbers"),
        (broken_place(scores=[float("nan")]), "'scores' must be a finite number per box"),
        (broken_place(scores=[]), "'scores' must be a finite number per box"),
        (
            broken_place(mask=encode_mask(np.ones((1, 16, 8), dtype=bool))),
            r"its mask has \[1, 16, 8\] voxels, but the image \[1, 16, 16\]",
        ),
    ],
)
def test_a_place_that_cannot_be_is_named(tmp_path, predictions, message):
    write(tmp_path, predictions)
    with pytest.raises(VividMedError, match=f"line 1: {message}|line 1: .*{message}"):
        read_predictions(tmp_path)


@pytest.mark.parametrize(
    "damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"PK"), truncate]
)
def test_masks_that_are_missing_or_damaged_are_named(tmp_path, damage):
    write(tmp_path, grounded()[:1])
    (masks,) = (tmp_path / "masks").iterdir()
    damage(masks)
    with pytest.raises(VividMedError, match=rf"line 1: its masks, {masks.name}, cannot be read"):
        read_predictions(tmp_path)


def test_a_table_says_that_its_predictions_are_incomplete(tmp_path):
    write(tmp_path, answers(3))
    for items, note in ((3, ""), (5, "it has 3 of 5 items"), (None, "it has 3 items")):
        (tmp_path / "run.json").write_text(json.dumps({"items": items}))
        predictions = read_predictions(tmp_path)
        assert note in unfinished(tmp_path, predictions)
    table = to_markdown(score(predictions, ["vqa"], samples=2), notes=[unfinished(tmp_path, predictions)])
    assert "is incomplete" in table
    (tmp_path / "run.json").unlink()
    assert not unfinished(tmp_path, predictions)  # written by another program


def test_intervals_depend_only_on_the_seed_and_draw_patients():
    metric = Accuracy()
    items = metric.score_items(["yes"] * 10 + ["no"] * 10, ["yes"] * 20)
    patients = [f"patient-{i // 10}" for i in range(20)]
    figures = bootstrap(metric, items, patients, samples=200, seed=1)
    assert figures == bootstrap(metric, items, patients, samples=200, seed=1)
    # Two patients, one all right and one all wrong: their items are never mixed.
    assert (figures["accuracy"].low, figures["accuracy"].high) == (0, 1)
    independent = bootstrap(metric, items, list(range(20)), samples=200, seed=1)["accuracy"]
    assert 0.2 < independent.low < 0.5 < independent.high < 0.8


def test_a_single_patient_gives_no_interval():
    scores = score(answers(4), ["vqa"], samples=20)
    assert scores.figures["accuracy"].value == 0.5
    assert np.isnan(scores.figures["accuracy"].low)
    assert "| accuracy | 0.500 | - | 4 |" in to_markdown(scores)
    difference = score_difference(answers(4), answers(4, right=lambda i: True), ["vqa"], samples=20)
    assert difference.figures["accuracy"].value == 0.5
    assert np.isnan(difference.figures["accuracy"].low)
    # Of several patients, only one was asked an open question.
    mixed = answers(8)
    mixed[0].reference = "left lung"
    figures = score(mixed, ["accuracy"], samples=20).figures
    assert np.isnan(figures["open_accuracy"].low)
    assert not np.isnan(figures["closed_accuracy"].low)


def test_paired_differences_are_narrower_than_separate_intervals():
    metric = Accuracy()
    first = metric.score_items(["yes" if i % 2 else "no" for i in range(40)], ["yes"] * 40)
    second = metric.score_items(["yes" if i % 2 or i == 0 else "no" for i in range(40)], ["yes"] * 40)
    difference = compare(metric, first, second, list(range(40)), samples=300)["accuracy"]
    assert difference.value == pytest.approx(1 / 40)
    assert difference.high - difference.low < 0.15


def test_scores_count_items_patients_and_failures():
    predictions = answers()
    predictions[0].failure, predictions[0].prediction = "unreadable", ""
    scores = score(predictions, ["vqa"], samples=50)
    assert (scores.items, scores.patients, scores.failures) == (20, 5, 1)
    assert scores.figures["accuracy"].value == pytest.approx(9 / 20)
    assert scores.counts["accuracy"] == 20


def test_a_figure_counts_the_items_that_decide_it_and_one_that_nothing_decides_is_named():
    boxes = score(grounded(), ["detection"], samples=2)
    assert boxes.counts["ap50"] == 4  # masses; the absent spleens can only add false positives
    reports = [
        Prediction(
            id=str(number),
            patient=str(number),
            task="grounded-report",
            prediction="Clear lungs.",
            reference="A lung nodule.",
            phrases=[PlacedPhrase(text="lungs")],
            references=[PlacedPhrase(text="lung nodule")] * number,
        )
        for number in range(3)
    ]
    scores = score(reports, ["radfact", "findings"], samples=2)
    counts = [scores.counts[f"logical_{figure}"] for figure in ("precision", "recall", "f1")]
    assert counts == [3, 2, 3]
    table = to_markdown(scores)
    assert "nothing counts: " in table
    assert "finding_precision" in table.partition("nothing counts: ")[2]
    assert "| finding_recall | 0.000 |" in table


def test_grounding_is_scored_in_all_and_by_target():
    scores = score(grounded(), samples=20)
    assert scores.figures["dice/liver"].value == pytest.approx(scores.figures["dice"].value)
    assert scores.figures["ap50/mass"].value == pytest.approx(1)
    assert scores.figures["suppression"].value == 1
    assert "dice/spleen" not in scores.figures


def test_targets_and_modalities_have_figures_of_their_own():
    predictions = grounded()
    for prediction, modality in zip(predictions, ("CT", "CT", "MRI", "MRI"), strict=True):
        prediction.modality = modality
    scores = score(predictions, samples=20)
    parts = [scores.figures[f"dice/{name}"].value for name in ("liver, CT", "liver, MRI")]
    assert np.mean(parts) == pytest.approx(scores.figures["dice/liver"].value)
    assert scores.figures["dice/CT"].value == pytest.approx(parts[0])
    text = to_markdown(scores)
    assert "| target | modality | dice | hd95 | nsd |" in text
    assert "| liver | MRI | " in text
    assert "| all | CT | " in text
    assert "dice,liver,MRI," in to_csv(scores)
    assert "dice,,CT," in to_csv(scores)


def test_boxes_of_targets_with_masks_are_scored_too():
    predictions = grounded()
    for prediction in predictions:
        prediction.references[0].boxes = prediction.phrases[0].boxes = [[0, 0, 0, 1, 4, 4]]
        prediction.phrases[0].scores = [0.5]
    assert score(predictions, ["detection"], samples=2).figures["ap50/liver"].value == pytest.approx(1)


@pytest.mark.parametrize("metric", [Accuracy(), Detection(), PhraseGrounding(), RadFact()], ids=repr_of)
def test_resamples_are_scored_as_drawn_items(metric):
    generator = np.random.default_rng(0)
    items = scored_items(metric, generator)
    draws = [generator.integers(len(items), size=len(items)).tolist() for _ in range(5)]
    resampled = metric.aggregate_resamples(items, draws)
    for number, draw in enumerate(draws):
        expected = metric.aggregate([items[index] for index in draw])
        for name, value in expected.items():
            assert resampled[name][number] == pytest.approx(value, nan_ok=True), name


def test_a_target_for_which_nothing_was_drawn_counts_as_missed(tmp_path):
    predictions = grounded()
    predictions[0].phrases[0].mask = None
    scores = score(predictions, ["segmentation", "grounding"], samples=5)
    complete = score(grounded(), ["segmentation"], samples=5)
    assert scores.counts["dice"] == scores.counts["hit_rate"] == 4
    assert (scores.counts["suppression"], scores.counts["box_accuracy"]) == (4, 4)
    assert scores.figures["dice"].value < complete.figures["dice"].value
    assert draw_plots(predictions, tmp_path)


@pytest.mark.parametrize(
    ("metrics", "message"), [(["blue"], "unknown"), (["segmentation"], "does not fit the task vqa")]
)
def test_metrics_that_do_not_apply_are_refused(metrics, message):
    with pytest.raises(VividMedError, match=message):
        score(answers(), metrics)


def test_two_folders_are_compared_on_the_items_they_share():
    scores = score_difference(answers(20), answers(12, right=lambda i: True), ["vqa"], samples=50)
    assert scores.items == 12
    assert scores.figures["accuracy"].value == pytest.approx(0.5)
    with pytest.raises(VividMedError, match="share no item"):
        score_difference(answers(4), grounded())


def test_tables_say_the_same_in_every_form():
    scores = score(answers(), ["vqa"], samples=50)
    assert "| accuracy | 0.500 |" in to_markdown(scores)
    assert "accuracy,,,0.5," in to_csv(scores)
    assert json.loads(to_json(scores))["figures"]["accuracy"]["value"] == 0.5
