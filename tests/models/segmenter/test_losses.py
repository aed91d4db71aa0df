"""Losses of masks and instances."""

import pytest
import torch
import torch.nn.functional as F

from vividmed.models.segmenter.instance_loss import InstanceLoss
from vividmed.models.segmenter.losses import (
    MaskLoss,
    dice_loss,
    generalized_box_iou,
    sigmoid_focal_loss,
)
from vividmed.models.segmenter.matching import NO_MATCH

SHAPE = (2, 4, 5)


def logits(*leading: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*leading, *SHAPE, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def masks(*leading: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(*leading, *SHAPE, generator=torch.Generator().manual_seed(seed)) > 0.6


def boxes(*leading: int, seed: int = 2) -> torch.Tensor:
    """Boxes inside the unit cube, centre and size."""
    size = torch.rand(*leading, 3, generator=torch.Generator().manual_seed(seed)) * 0.4 + 0.1
    centre = (
        torch.rand(*leading, 3, generator=torch.Generator().manual_seed(seed + 1)) * (1 - size) + size / 2
    )
    return torch.cat([centre, size], dim=-1)


def test_dice_is_zero_for_the_right_mask_and_one_for_an_empty_target():
    target = masks(1)
    assert dice_loss(target * 60.0 - 30.0, target).item() == pytest.approx(0, abs=1e-6)
    drawn = logits(1)
    loss = dice_loss(drawn, torch.zeros(1, *SHAPE))
    loss.sum().backward()
    assert loss.item() == 1
    assert drawn.grad.abs().max() == 0


def test_focal_loss_without_focus_is_cross_entropy():
    drawn, target = logits(2), masks(2)
    expected = F.binary_cross_entropy_with_logits(drawn, target.float(), reduction="none")
    assert torch.allclose(sigmoid_focal_loss(drawn, target, gamma=0), expected)


def test_focal_loss_follows_its_formula():
    drawn, target = logits(2).double(), masks(2)
    probability = drawn.sigmoid().where(target, 1 - drawn.sigmoid())
    weight = torch.where(target, 0.7, 0.3)
    expected = -weight * (1 - probability) ** 1.5 * probability.log()
    loss = sigmoid_focal_loss(drawn.float(), target, gamma=1.5, alpha=0.7)
    assert torch.allclose(loss.double(), expected, atol=1e-6)


def test_focal_loss_is_finite_where_the_prediction_is_extreme():
    extreme = torch.tensor([-1e4, 1e4, -1e4, 1e4], requires_grad=True)
    sigmoid_focal_loss(extreme, torch.tensor([0, 1, 1, 0])).sum().backward()
    assert extreme.grad.isfinite().all()


def test_giou_of_known_boxes():
    unit = torch.tensor([0.5, 0.5, 0.5, 1, 1, 1])
    assert generalized_box_iou(unit, unit).item() == pytest.approx(1, abs=1e-5)
    beside = torch.tensor([0.5, 0.5, 2.5, 1, 1, 1])  # a gap as wide as the boxes
    assert generalized_box_iou(unit, beside).item() == pytest.approx(-1 / 3, abs=1e-5)
    inside = torch.tensor([0.5, 0.5, 0.5, 1, 0.5, 0.5])
    assert generalized_box_iou(unit, inside).item() == pytest.approx(0.25, abs=1e-5)


def test_giou_of_degenerate_boxes_is_finite_with_finite_gradient():
    flat = torch.tensor([[0.5, 0.5, 0.5, 0, 0, 0], [0.5, 0.5, 0.5, -1, -1, -1]], requires_grad=True)
    value = generalized_box_iou(flat, flat.detach())
    value.sum().backward()
    assert value.isfinite().all()
    assert flat.grad.isfinite().all()


def test_mask_loss_is_the_weighted_sum_of_its_components():
    criterion = MaskLoss(dice_weight=3, focal_weight=0.5, focal_gamma=1, focal_alpha=0.8)
    loss = criterion(logits(2), masks(2))
    expected = 3 * loss.components["dice"] + 0.5 * loss.components["focal"]
    assert loss.components.keys() == {"dice", "focal"}
    assert loss.total.item() == pytest.approx(expected.item())


def test_ignored_voxels_leave_no_trace():
    drawn, target = logits(2), masks(2)
    ignore = torch.zeros(2, *SHAPE, dtype=torch.bool)
    ignore[..., 3:] = True
    loss = MaskLoss()(drawn, target, ignore=ignore)
    loss.total.backward()
    cropped = MaskLoss()(drawn.detach()[..., :3], target[..., :3])
    assert loss.total.item() == pytest.approx(cropped.total.item(), abs=1e-6)
    assert drawn.grad[ignore].abs().max() == 0
    assert drawn.grad[~ignore].abs().min() > 0


def test_one_ignore_mask_serves_all_masks_of_an_image():
    drawn, target, ignore = logits(3), masks(3), masks(seed=5)
    shared = MaskLoss()(drawn, target, ignore=ignore).total
    assert shared.item() == pytest.approx(
        MaskLoss()(drawn, target, ignore=ignore.expand(3, *SHAPE)).total.item()
    )


def test_targets_that_nobody_looked_for_do_not_count():
    drawn, target = logits(3), masks(3)
    known = torch.tensor([True, False, True])
    loss = MaskLoss()(drawn, target, known=known)
    loss.total.backward()
    assert loss.total.item() == pytest.approx(MaskLoss()(drawn[known], target[known]).total.item())
    assert drawn.grad[1].abs().max() == 0


@pytest.mark.parametrize(
    "given",
    [{"known": torch.zeros(2, dtype=torch.bool)}, {"ignore": torch.ones(2, *SHAPE, dtype=torch.bool)}],
)
def test_nothing_to_learn_is_zero_but_stays_in_the_graph(given):
    drawn = logits(2)
    loss = MaskLoss()(drawn, masks(2), **given)
    loss.total.backward()
    assert loss.total == 0
    assert loss.components == {}
    assert drawn.grad.abs().max() == 0


def test_no_masks_give_zero_in_the_graph():
    drawn = logits(0)
    loss = MaskLoss()(drawn, masks(0))
    loss.total.backward()
    assert loss.total == 0
    assert drawn.grad.shape == drawn.shape


def test_no_target_means_empty_masks():
    drawn = logits(2)
    assert torch.equal(MaskLoss()(drawn, None).total, MaskLoss()(drawn, torch.zeros(2, *SHAPE)).total)


def test_right_instances_cost_almost_nothing():
    labels = [boxes(2), boxes(0)]
    predicted = torch.stack([torch.cat([boxes(1, seed=9), labels[0]]), boxes(3, seed=8)])
    scores = torch.full((2, 3), -20.0)
    scores[0, 1:] = 20
    loss = InstanceLoss()(predicted, scores, labels)
    assert loss.total.item() == pytest.approx(0, abs=1e-4)
    assert [match.tolist() for match in loss.matches] == [[NO_MATCH, 0, 1], [NO_MATCH] * 3]


def test_instance_loss_is_the_weighted_sum_of_its_components():
    loss = InstanceLoss(score_weight=3, box_l1_weight=4, box_giou_weight=0.5)(
        boxes(2, 4), torch.randn(2, 4), [boxes(1), boxes(2)]
    )
    parts = loss.components
    assert parts.keys() == {"score", "score_positive", "score_negative", "box_l1", "box_giou"}
    expected = 3 * parts["score"] + 4 * parts["box_l1"] + 0.5 * parts["box_giou"]
    assert loss.total.item() == pytest.approx(expected.item())


def test_order_of_labels_does_not_matter():
    predicted, scores, labels = boxes(1, 5), torch.randn(1, 5), boxes(3, seed=7)
    forth, back = (InstanceLoss()(predicted, scores, [given]) for given in (labels, labels.flip(0)))
    assert forth.total.item() == pytest.approx(back.total.item())


def test_absent_targets_teach_low_scores_and_do_not_move_boxes():
    predicted, scores = boxes(2, 3).requires_grad_(), torch.zeros(2, 3, requires_grad=True)
    loss = InstanceLoss()(predicted, scores, [boxes(0), boxes(0)])
    loss.total.backward()
    assert loss.components.keys() == {"score", "score_negative"}
    assert (scores.grad > 0).all()
    assert predicted.grad.abs().max() == 0


def test_surplus_instances_are_left_out():
    loss = InstanceLoss()(boxes(1, 2), torch.randn(1, 2), [boxes(5, seed=11)])
    assert loss.components.keys() == {"score", "score_positive", "box_l1", "box_giou"}
    assert len(set(loss.matches[0].tolist()) - {NO_MATCH}) == 2


def test_no_prompts_give_zero_in_the_graph():
    predicted, scores = torch.zeros(0, 3, 6, requires_grad=True), torch.zeros(0, 3, requires_grad=True)
    loss = InstanceLoss()(predicted, scores, [])
    loss.total.backward()
    assert loss.total == 0
    assert loss.components == {}
    assert predicted.grad is not None
    assert scores.grad is not None


def test_incomplete_labels_do_not_punish_other_queries():
    predicted, scores = boxes(2, 4).requires_grad_(), torch.zeros(2, 4, requires_grad=True)
    labels = [boxes(1, seed=5), boxes(0)]
    loss = InstanceLoss()(predicted, scores, labels, exhaustive=torch.tensor([False, False]))
    loss.total.backward()
    matched = torch.stack(loss.matches) != NO_MATCH
    assert matched.sum() == 1
    assert (scores.grad[matched] < 0).all()
    assert scores.grad[~matched].abs().max() == 0
    assert "score_negative" not in loss.components


def test_only_unknown_targets_give_zero_in_the_graph():
    scores = torch.zeros(1, 4, requires_grad=True)
    loss = InstanceLoss()(boxes(1, 4), scores, [boxes(0)], exhaustive=torch.tensor([False]))
    loss.total.backward()
    assert loss.total == 0
    assert scores.grad.abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_losses_are_float32_whatever_comes_in(dtype):
    """Labels once promoted the loss to float64, which stops mixed precision training."""
    instance = InstanceLoss()(
        boxes(1, 3).to(dtype), torch.randn(1, 3).to(dtype), [boxes(2).to(torch.float64)]
    )
    mask = MaskLoss()(logits(1).to(dtype), masks(1).to(torch.float64))
    for loss in (instance, mask):
        assert {value.dtype for value in [loss.total, *loss.components.values()]} == {torch.float32}


def test_masks_decide_the_match_when_given():
    target = masks(1)
    drawn = torch.stack([logits(seed=3).detach(), target[0] * 20.0 - 10.0])[None]
    label = boxes(1)
    # By boxes the first query would win.
    predicted = torch.stack([label[0], boxes(1, seed=9)[0]])[None]
    given = {"masks": drawn, "low_res_masks": drawn, "target_masks": [target]}
    assert InstanceLoss()(predicted, torch.zeros(1, 2), [label]).matches[0].tolist() == [0, NO_MATCH]
    loss = InstanceLoss()(predicted, torch.zeros(1, 2), [label], **given)
    assert loss.matches[0].tolist() == [NO_MATCH, 0]
    assert loss.components["mask_dice"] < 0.01
