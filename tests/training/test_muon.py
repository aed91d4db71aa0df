"""Muon makes updates of hidden matrices orthogonal; everything else is AdamW."""

import pytest
import torch
from torch import nn

from tests.fixtures.training import logged, small_arguments, small_model, small_processor, small_trainer
from vividmed.errors import VividMedError
from vividmed.training.muon import Muon, orthogonal
from vividmed.training.parameter_groups import muon_groups


@pytest.mark.parametrize("shape", [(16, 16), (16, 48), (48, 16), (1, 7)])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_orthogonal_keeps_directions_and_makes_them_equally_long(shape, scale):
    torch.manual_seed(0)
    matrix = scale * torch.randn(shape)
    result = orthogonal(matrix)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    lengths = torch.diagonal(left.T @ result @ right.T)
    assert lengths.min() > 0.6
    assert lengths.max() < 1.3
    assert torch.linalg.svdvals(result).max() < 1.3


def test_a_gradient_of_zero_moves_nothing():
    assert orthogonal(torch.zeros(4, 6)).abs().max() == 0


def test_an_update_has_the_size_of_the_learning_rate():
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(32, 128))
    before = weight.detach().clone()
    weight.grad = 1e-4 * torch.randn(32, 128)
    Muon([{"params": [weight], "muon": True}], lr=0.01).step()
    # AdamW's updates have a root mean square of 0.2 to 0.4 learning rates.
    assert (weight - before).square().mean().sqrt().item() == pytest.approx(0.2 * 0.01, rel=0.2)


def test_other_weights_are_updated_by_adamw():
    torch.manual_seed(0)
    ours = nn.Parameter(torch.randn(5, 3))
    theirs = nn.Parameter(ours.detach().clone())
    settings = {"lr": 0.01, "betas": (0.8, 0.9), "eps": 1e-6, "weight_decay": 0.1}
    muon, adamw = Muon([ours], **settings), torch.optim.AdamW([theirs], **settings)
    for _ in range(3):
        ours.grad = torch.randn(5, 3)
        theirs.grad = ours.grad.clone()
        muon.step()
        adamw.step()
    torch.testing.assert_close(ours, theirs)


def test_weight_decay_shrinks_a_matrix_by_the_learning_rate():
    weight = nn.Parameter(torch.ones(4, 4))
    weight.grad = torch.zeros(4, 4)
    Muon([{"params": [weight], "muon": True}], lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(weight.detach(), torch.full((4, 4), 0.95))


def test_only_matrices_are_taken():
    with pytest.raises(ValueError, match="only matrices"):
        Muon([{"params": [nn.Parameter(torch.ones(4))], "muon": True}], lr=0.1)


def test_embeddings_output_norms_and_convolutions_stay_with_adamw():
    model = small_model(small_processor())
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = muon_groups(model, weight_decay=0.1)
    hidden = {names[parameter] for group in groups if group["muon"] for parameter in group["params"]}
    others = {names[parameter] for group in groups if not group["muon"] for parameter in group["params"]}
    assert hidden | others == set(names.values())
    assert not hidden & others
    assert hidden
    assert not any("lm_head" in name or "embed" in name or "norm" in name for name in hidden)
    assert all(group["weight_decay"] == 0.1 for group in groups if group["muon"])


def test_training_learns_with_it_and_resumes_exactly(tmp_path):
    settings = {"muon": True, "max_steps": 4, "save_steps": 2}
    whole = small_trainer(tmp_path / "whole", **settings)
    whole.train()
    assert isinstance(whole.optimizer.optimizer, Muon)
    assert logged(whole)[-1] < logged(whole)[0]
    resumed = small_trainer(tmp_path / "resumed", **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    for ours, theirs in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_another_optimizer_beside_it_is_refused(tmp_path):
    with pytest.raises(VividMedError, match="--optim has no effect with --muon"):
        small_arguments(tmp_path, muon=True, optim="adafactor")


@pytest.mark.parametrize("sharded", ["is_fsdp_enabled", "is_deepspeed_enabled"])
def test_sharded_weights_are_refused(sharded, tmp_path):
    trainer = small_trainer(tmp_path, muon=True)
    setattr(trainer, sharded, True)
    with pytest.raises(VividMedError, match="--muon needs whole matrices"):
        trainer.create_optimizer()
