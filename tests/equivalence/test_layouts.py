"""How samples are laid out in a batch never changes what the model computes for them."""

import pytest
import torch

from tests.fixtures.batches import pack, pad, ragged_samples, tiny_model


def alone(model, samples, labels: bool = False) -> list:
    return [model(**pad([sample], labels=labels), output_hidden_states=True) for sample in samples]


def gradients(model, batch: dict) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(**batch).loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_a_padded_batch_gives_what_each_sample_gives_by_itself(side: str):
    model, samples = tiny_model(), ragged_samples()
    outputs = model(**pad(samples, side, extra=2), output_hidden_states=True)
    for row, (sample, single) in enumerate(zip(samples, alone(model, samples), strict=True)):
        length = outputs.logits.shape[1]
        real = slice(length - len(sample), None) if side == "left" else slice(0, len(sample))
        torch.testing.assert_close(outputs.logits[row, real], single.logits[0], atol=1e-5, rtol=1e-5)
        for ours, theirs in zip(outputs.hidden_states, single.hidden_states, strict=True):
            torch.testing.assert_close(ours[row, real], theirs[0], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_hidden_states_are_zero_at_padding():
    samples = ragged_samples()
    batch = pad(samples, extra=2)
    outputs = tiny_model()(**batch, output_hidden_states=True)
    for hidden_states in outputs.hidden_states:
        assert hidden_states[batch["attention_mask"] == 0].abs().max() == 0
        assert hidden_states[batch["attention_mask"] == 1].abs().min() > 0


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@torch.no_grad()
def test_packed_samples_see_only_themselves(attention: str):
    model, samples = tiny_model(attention=attention), ragged_samples()
    logits = model(**pack(samples)).logits[0]
    start = 0
    for sample, single in zip(samples, alone(model, samples), strict=True):
        packed = logits[start : start + len(sample)]
        torch.testing.assert_close(packed, single.logits[0], atol=1e-5, rtol=1e-5)
        start += len(sample)


def test_loss_and_gradients_are_those_of_the_samples_alone_however_they_are_laid_out():
    model, samples = tiny_model().train(), ragged_samples()
    layouts = {
        "right": pad(samples, "right", extra=2, labels=True),
        "left": pad(samples, "left", extra=2, labels=True),
        "packed": pack(samples, labels=True),
    }
    supervised = [int((sample.text["labels"] != -100).sum()) for sample in samples]
    with torch.no_grad():
        losses = [output.loss for output in alone(model, samples, labels=True)]
    expected = sum(loss * count for loss, count in zip(losses, supervised, strict=True)) / sum(supervised)

    reference = gradients(model, layouts["right"])
    assert all(gradient.isfinite().all() for gradient in reference.values())
    for layout, batch in layouts.items():
        torch.testing.assert_close(model(**batch).loss, expected, msg=f"loss of the {layout} batch")
        for name, gradient in gradients(model, batch).items():
            torch.testing.assert_close(
                gradient, reference[name], atol=1e-5, rtol=1e-4, msg=f"{layout}: {name}"
            )


def test_a_batch_without_images_gives_every_parameter_a_gradient():
    model, samples = tiny_model().train(), ragged_samples()[3:]
    grads = gradients(model, pad(samples, labels=True))
    assert grads.keys() == {name for name, _ in model.named_parameters()}
    assert all(gradient.isfinite().all() for gradient in grads.values())
    assert all(gradient.abs().max() == 0 for name, gradient in grads.items() if "vision" in name)


def test_a_batch_without_labels_has_zero_loss_and_no_nan():
    model, samples = tiny_model().train(), ragged_samples()
    batch = pad(samples, labels=True)
    batch["labels"] = torch.full_like(batch["labels"], -100)
    assert model(**batch).loss == 0
    assert all(gradient.abs().max() == 0 for gradient in gradients(model, batch).values())


def test_the_loss_can_be_averaged_over_a_larger_batch():
    model, samples = tiny_model().train(), ragged_samples()
    whole = pad(samples, labels=True)
    count = (whole["labels"] != -100).sum()
    parts = [pad(samples[:1], labels=True), pad(samples[1:], labels=True)]
    total = sum(model(**part, num_items_in_batch=count).loss for part in parts)
    torch.testing.assert_close(total, model(**whole).loss)
