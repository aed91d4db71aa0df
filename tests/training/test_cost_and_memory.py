import pytest
import torch
from torch import nn

from tests.fixtures.training import small_config, small_model, small_processor
from vividmed.data.batches.collator import BatchSize
from vividmed.training.memory import memory_summary
from vividmed.training.throughput import StepCost, peak_flops

PROCESSOR = small_processor()


def test_cost_of_a_token_is_six_operations_for_each_weight_it_meets():
    model = small_model(PROCESSOR)
    cost = StepCost(small_config(PROCESSOR))
    one = cost.flops(BatchSize(samples=1, tokens=1, supervised_tokens=0, patches=0))
    met = sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if "language_expert" in name or "language_mlp" in name
    )
    attention = 12 * 2 * 32
    assert one == 6 * met + attention
    patch = cost.flops(BatchSize(samples=1, tokens=0, supervised_tokens=0, patches=1))
    vision = sum(
        module.weight.numel()
        for name, module in model.model.vision.named_modules()
        if isinstance(module, nn.Linear) and "linear_proj" not in name
    )
    assert patch == 6 * (vision + model.model.vision.patch_embedding.proj.weight.numel())


def test_cost_grows_with_labels():
    cost = StepCost(small_config(PROCESSOR))
    without, with_labels = (
        cost.flops(BatchSize(samples=2, tokens=50, supervised_tokens=number, patches=8)) for number in (0, 10)
    )
    assert with_labels - without == pytest.approx(6 * 10 * 32 * len(PROCESSOR.tokenizer))


def test_peak_of_a_processor_is_unknown():
    assert peak_flops(torch.device("cpu")) is None


@pytest.mark.parametrize(
    ("name", "peak"), [("NVIDIA H100 PCIe", 756e12), ("NVIDIA H100 80GB HBM3", 989e12), ("X", None)]
)
def test_peak_goes_by_the_most_specific_name(monkeypatch, name, peak):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert peak_flops(torch.device("cuda")) == peak


def test_memory_summary_counts_all_and_trainable_weights():
    model = small_model(PROCESSOR)
    model.model.vision.requires_grad_(False)
    total = sum(parameter.numel() for parameter in model.parameters())
    vision = sum(parameter.numel() for parameter in model.model.vision.parameters())
    lines = {line[:20].strip(): line[20:].split() for line in memory_summary(model).splitlines()}
    assert lines["all"][:2] == [f"{total:,}", f"{total - vision:,}"]
    assert lines["vision tower"][:2] == [f"{vision:,}", "0"]
    megabytes = 4 * (total - vision) / 2**20
    assert f"gradients {megabytes:,.1f} MiB, AdamW {2 * megabytes:,.1f} MiB" in memory_summary(model)
