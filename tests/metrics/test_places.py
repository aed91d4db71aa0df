"""Metrics of masks and boxes against other implementations and cases worked out by hand."""

import numpy as np
import pytest
import torch
from faster_coco_eval import COCO, COCOeval_faster
from monai.metrics import DiceMetric
from scipy.spatial.distance import cdist

from vividmed.errors import VividMedError
from vividmed.metrics.detection import Detection
from vividmed.metrics.entailment import TaxonomyEntailment
from vividmed.metrics.grounding import PhraseGrounding, RadFact
from vividmed.metrics.masks import decode_mask, encode_mask
from vividmed.metrics.segmentation import Segmentation


def ball(centre, radius, shape=(12, 20, 20)):
    grid = np.indices(shape)
    return sum((axis - place) ** 2 for axis, place in zip(grid, centre, strict=True)) <= radius**2


def surface(mask):
    padded = np.pad(mask, 1)
    inner = padded.copy()
    for axis in range(mask.ndim):
        inner &= np.roll(padded, 1, axis) & np.roll(padded, -1, axis)
    return (padded & ~inner)[(slice(1, -1),) * mask.ndim]


@pytest.mark.parametrize("shape", [(12, 20, 20), (1, 20, 20)])
def test_masks_survive_encoding(shape):
    mask = np.random.default_rng(0).random(shape) > 0.7
    assert np.array_equal(decode_mask(encode_mask(mask)), mask)
    empty = np.zeros(shape, dtype=bool)
    assert np.array_equal(decode_mask(encode_mask(empty)), empty)


def test_segmentation_is_that_of_other_implementations():
    spacing = (2.0, 0.7, 0.7)
    found, truth = ball((5, 9, 9), 4), ball((6, 11, 10), 5)
    figures = Segmentation().compute(
        predictions=[encode_mask(found, spacing)], references=[encode_mask(truth, spacing)]
    )
    tensors = [torch.from_numpy(mask)[None, None].float() for mask in (found, truth)]
    assert figures["dice"] == pytest.approx(float(DiceMetric()(*tensors)), abs=1e-6)
    distances = cdist(np.argwhere(surface(found)) * spacing, np.argwhere(surface(truth)) * spacing)
    forth, back = distances.min(1), distances.min(0)
    assert figures["hd95"] == pytest.approx(max(np.percentile(forth, 95), np.percentile(back, 95)), abs=1e-4)
    near = ((forth <= 2).sum() + (back <= 2).sum()) / (len(forth) + len(back))
    assert figures["nsd"] == pytest.approx(near, abs=1e-6)


def test_empty_masks_count_where_something_was_to_be_found():
    empty, full = np.zeros((1, 8, 8), dtype=bool), np.ones((1, 8, 8), dtype=bool)
    pairs = [(empty, full), (full, empty), (empty, empty), (full, full)]
    figures = Segmentation().compute(
        predictions=[encode_mask(found) for found, _ in pairs],
        references=[encode_mask(truth) for _, truth in pairs],
    )
    assert figures["dice"] == pytest.approx(1 / 3)
    assert figures["hd95"] == 0


@pytest.mark.parametrize("form", ["mask", "phrase", "report"])
def test_masks_of_different_grids_are_refused(form):
    masks = [np.ones(shape, dtype=bool) for shape in ((12, 20, 20), (12, 20, 19))]
    metric, given = {
        "mask": (Segmentation, encode_mask),
        "phrase": (PhraseGrounding, place),
        "report": (RadFact, lambda mask: report(("lung nodule", place(mask)))),
    }[form]
    with pytest.raises(VividMedError, match="one grid"):
        metric().compute(predictions=[given(masks[0])], references=[given(masks[1])])


def random_boxes(generator, number):
    low = generator.integers(0, 60, size=(number, 2))
    return np.concatenate([low, low + generator.integers(5, 40, size=(number, 2))], axis=1)


def volume(box):
    return [0, *box[:2].tolist(), 1, *box[2:].tolist()]


def coco_box(box):
    y0, x0, y1, x1 = box.tolist()
    return [x0, y0, x1 - x0, y1 - y0]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_average_precision_is_that_of_coco(seed):
    generator = np.random.default_rng(seed)
    annotations, detections, predictions, references = [], [], [], []
    for image in range(12):
        for category, name in enumerate(("mass", "nodule"), start=1):
            truth = random_boxes(generator, int(generator.integers(0, 4)))
            moved = truth + generator.integers(-4, 5, size=truth.shape)
            found = np.concatenate([moved, random_boxes(generator, 2)])
            found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
            scores = generator.random(len(found)).round(6).tolist()
            predictions.append({"boxes": [volume(box) for box in found], "scores": scores})
            references.append({"boxes": [volume(box) for box in truth], "target": name})
            place = {"image_id": image, "category_id": category}
            for box in truth:
                area = coco_box(box)[2] * coco_box(box)[3]
                extra = {"id": len(annotations) + 1, "area": area, "iscrowd": 0}
                annotations.append({**place, **extra, "bbox": coco_box(box)})
            for box, score in zip(found, scores, strict=True):
                detections.append({**place, "bbox": coco_box(box), "score": score})
    images = [{"id": image, "width": 100, "height": 100} for image in range(12)]
    categories = [{"id": 1, "name": "mass"}, {"id": 2, "name": "nodule"}]
    truth = COCO({"images": images, "annotations": annotations, "categories": categories})
    official = COCOeval_faster(truth, truth.loadRes(detections), "bbox")
    official.evaluate()
    official.accumulate()
    official.summarize()
    figures = Detection().compute(predictions=predictions, references=references)
    assert figures["ap"] == pytest.approx(official.stats[0], abs=1e-4)
    assert figures["ap50"] == pytest.approx(official.stats[1], abs=1e-4)


def coco_figures(images):
    """AP and AP50 by faster-coco-eval of true boxes, and of found boxes with scores, of one category per image."""
    annotations = [
        {
            "id": number,
            "image_id": image,
            "category_id": 1,
            "area": 1,
            "iscrowd": 0,
            "bbox": coco_box(np.asarray(box)),
        }
        for number, (image, box) in enumerate(
            ((image, box) for image, (truth, _) in enumerate(images) for box in truth), start=1
        )
    ]
    detections = [
        {"image_id": image, "category_id": 1, "bbox": coco_box(np.asarray(box)), "score": score}
        for image, (_, found) in enumerate(images)
        for box, score in found
    ]
    listed = [{"id": image, "width": 100, "height": 100} for image in range(len(images))]
    truth = COCO({"images": listed, "annotations": annotations, "categories": [{"id": 1, "name": "mass"}]})
    official = COCOeval_faster(truth, truth.loadRes(detections), "bbox")
    official.evaluate()
    official.accumulate()
    official.summarize()
    return official.stats[:2]


SQUARE = (0, 0, 100, 100)


@pytest.mark.parametrize(
    "images",
    [
        [([SQUARE], [((0, 0, 65, 100), 0.9)]), ([SQUARE], [((0, 0, 70, 100), 0.8)])],
        [([(5, 5, 5, 15)], [((5, 5, 5, 15), 0.9)]), ([SQUARE], [(SQUARE, 0.8)])],
        [([SQUARE], [((5, 5, 5, 5), 0.9), (SQUARE, 0.8)])],
        [([SQUARE], [((90, 90, 100, 100), 0.5), (SQUARE, 0.5)]), ([SQUARE], [(SQUARE, 0.5)])],
    ],
    ids=["IoU at a threshold", "true box without an area", "found box without an area", "equal scores"],
)
def test_borderline_boxes_count_as_in_coco(images):
    figures = Detection().compute(
        predictions=[
            {"boxes": [volume(np.asarray(box)) for box, _ in found], "scores": [score for _, score in found]}
            for _, found in images
        ],
        references=[
            {"boxes": [volume(np.asarray(box)) for box in truth], "target": "mass"} for truth, _ in images
        ],
    )
    assert [figures["ap"], figures["ap50"]] == pytest.approx(coco_figures(images), abs=1e-4)


def test_best_iou_and_froc_by_hand():
    square, half, far = [0, 0, 0, 1, 10, 10], [0, 0, 0, 1, 10, 5], [0, 50, 50, 1, 60, 60]
    figures = Detection().compute(
        predictions=[{"boxes": [far, square], "scores": [0.9, 0.5]}, {"boxes": [half], "scores": [0.8]}],
        references=[{"boxes": [square], "target": "mass"}] * 2,
    )
    assert figures["best_iou"] == pytest.approx(0.75)
    # The false positive has the highest score: nothing is found at 1/8 and 1/4 per image, all from 1/2 on.
    assert figures["froc"] == pytest.approx(5 / 7)


def place(mask=None, boxes=()):
    return {"mask": None if mask is None else encode_mask(mask), "boxes": [list(box) for box in boxes]}


def test_phrases_are_hit_matched_by_instance_and_suppressed():
    left, right = ball((5, 9, 4), 3), ball((5, 9, 15), 3)
    figures = PhraseGrounding().compute(
        predictions=[place(left), place(np.zeros_like(left)), place(), place(left)],
        references=[place(left | right), place(right), place(), place()],
    )
    assert figures["hit_rate"] == pytest.approx(1 / 2)
    assert (figures["instance_precision"], figures["instance_recall"]) == (1, pytest.approx(1 / 3))
    assert figures["suppression"] == pytest.approx(1 / 2)
    assert figures["absent_voxels"] == pytest.approx(left.mean() / 2)


@pytest.mark.parametrize(
    ("premise", "hypothesis", "entailed"),
    [
        ("left pleural effusion", "pleural effusion", True),
        ("pleural effusion", "left pleural effusion", False),
        ("bilateral pleural effusions", "left pleural effusion", True),
        ("right pleural effusion", "left pleural effusion", False),
        ("no pleural effusion", "pleural effusion", False),
        ("no pleural effusion", "no left pleural effusion", True),
        ("no left pleural effusion", "no pleural effusion", False),
        ("The heart is normal.", "the heart is normal", True),
        ("an odd finding", "another finding", False),
    ],
)
def test_entailment_minds_sides_kinds_and_negation(premise, hypothesis, entailed):
    assert TaxonomyEntailment()(hypothesis, [premise]) == ([0] if entailed else [])


def report(*phrases):
    texts, places = zip(*phrases, strict=True)
    return {"phrases": list(texts), "places": list(places), "size": [12, 20, 20]}


def test_radfact_by_hand():
    here, there = ball((5, 9, 4), 3), ball((5, 9, 15), 3)
    reference = report(
        ("pleural effusion", place(here)), ("lung nodule", place(there)), ("no fracture", place())
    )
    prediction = report(
        ("pleural effusion", place(here)), ("lung nodule", place(here)), ("liver cyst", place(there))
    )
    figures = RadFact().compute(predictions=[prediction], references=[reference])
    assert figures["logical_precision"] == pytest.approx(2 / 3)
    assert figures["logical_recall"] == pytest.approx(2 / 3)
    assert figures["grounding_precision"] == pytest.approx(1 / 2)
    assert figures["spatial_precision"] == pytest.approx(1 / 3)
    assert figures["grounding_recall"] == figures["spatial_recall"] == pytest.approx(1 / 2)


def test_a_report_without_phrases_is_a_miss_in_radfact_and_two_of_them_are_nothing():
    empty = {"phrases": [], "places": [], "size": [12, 20, 20]}
    said = report(("lung nodule", place(ball((5, 9, 4), 3))))
    for prediction, reference, expected in ((empty, said, 0), (said, empty, 0), (empty, empty, np.nan)):
        figures = RadFact().compute(predictions=[prediction], references=[reference])
        assert figures["logical_f1"] == figures["spatial_f1"] == expected or np.isnan(expected)
        assert np.isnan(figures["logical_f1"]) == np.isnan(expected)


def test_radfact_of_boxes_needs_more_than_half_inside():
    wide, inside, half = [0, 0, 0, 1, 10, 10], [0, 2, 2, 1, 4, 4], [0, 0, 5, 1, 10, 15]
    for box, expected in ((inside, 1), (half, 0)):
        figures = RadFact().compute(
            predictions=[report(("lung nodule", place(boxes=[box])))],
            references=[report(("lung nodule", place(boxes=[wide])))],
        )
        assert figures["spatial_precision"] == expected
