"""The measurements of ``benchmarks.gpu``; each takes a model or builds its own, and returns figures by name."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.gpu.model import Scale, adapt, build, collate, quantize, rows
from vividmed.data.batches.collator import BatchSize
from vividmed.models.layer_stack import compile_layers
from vividmed.models.modeling_vividmed import VividMedForCausalLM
from vividmed.training.throughput import StepCost, peak_flops

Figures = dict[str, Any]
Part = Callable[[Scale, torch.device], Iterator[tuple[str, Figures]]]
_GIB = 2**30
ATTENTION = ("eager", "sdpa", "flex_attention", "flash_attention_2")
_COPY_BYTES = 2**30


def seconds(run: Callable[[], object], device: torch.device, rounds: int) -> float:
    """Mean time of a run after one warm-up."""
    run()
    synchronize(device)
    start = time.perf_counter()
    for _ in range(rounds):
        run()
    synchronize(device)
    return (time.perf_counter() - start) / rounds


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak(device: torch.device) -> None:
    """Start a new measurement of peak memory."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_gib(device: torch.device) -> float | None:
    """Peak memory since the last reset; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) / _GIB if device.type == "cuda" else None


class TrainingStep:
    """Forward, backward and optimizer step, as a stage does them.

    Args:
        model: model with adapters.
        scale: sizes and type.
        device: where it is.
    """

    def __init__(self, model: nn.Module, scale: Scale, device: torch.device):
        self.model = model
        self.scale = scale
        self.device = device
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-5, fused=device.type == "cuda")

    def __call__(self, batch: dict[str, Any]) -> None:
        half = self.scale.dtype == torch.bfloat16
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            loss = self.model(**batch, use_cache=False, skip_logits=True).loss
        loss.backward()
        nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def full(self, samples: int) -> Figures:
        """Figures of a step with the given number of samples, each of full length."""
        return self.figures(
            *collate(self.scale, rows(self.scale, [self.scale.length] * samples), self.device)
        )

    def figures(self, batch: dict[str, Any], size: BatchSize) -> Figures:
        """Time, rates, utilisation and memory of a step."""
        reset_peak(self.device)
        duration = seconds(lambda: self(batch), self.device, self.scale.rounds)
        peak = peak_flops(self.device)
        flops = StepCost(self.scale.config).flops(size)
        return {
            "samples": size.samples,
            "tokens": size.tokens,
            "seconds per step": duration,
            "tokens/s": size.tokens / duration,
            "samples/s": size.samples / duration,
            "TFLOP/s": flops / duration / 1e12,
            "MFU": None if peak is None else flops / duration / peak,
            "peak GiB": peak_gib(self.device),
        }


def language(scale: Scale, device: torch.device) -> Iterator[tuple[str, Figures]]:
    """Attention implementations, decoding and bf16 LoRA, which share one set of weights."""
    model = build(scale, device).eval()
    yield from attention(model, scale, device)
    yield from decoding(model, scale, device)
    yield from lora(model, scale, device)


def attention(
    model: VividMedForCausalLM, scale: Scale, device: torch.device
) -> Iterator[tuple[str, Figures]]:
    """A forward pass with each implementation of attention."""
    batch, size = collate(scale, rows(scale, [scale.length] * scale.batch), device)
    batch["pixel_values"] = [image.to(scale.dtype) for image in batch["pixel_values"]]

    def forward() -> None:
        with torch.no_grad():
            model(**batch, use_cache=False, skip_logits=True)

    for implementation in ATTENTION:
        name = f"forward, {implementation}"
        try:
            model.set_attn_implementation(implementation)
            reset_peak(device)
            duration = seconds(forward, device, scale.rounds)
            yield (
                name,
                {"seconds": duration, "tokens/s": size.tokens / duration, "peak GiB": peak_gib(device)},
            )
        except Exception as error:  # an implementation that this machine lacks must not end the run
            yield name, failure(error)
    model.set_attn_implementation("sdpa")


def decoding(model: VividMedForCausalLM, scale: Scale, device: torch.device) -> Iterator[tuple[str, Figures]]:
    """Time per token with a dynamic cache, and with a static one whose step is compiled, against the bandwidth."""
    (sample,) = rows(scale, [scale.length // 2])
    inputs = scale.processor(
        images=[sample["images"]], conversations=[sample["messages"][:1]], return_tensors="pt"
    ).to(device)
    inputs.pop("geometry", None)
    inputs["pixel_values"] = [image.to(device, scale.dtype) for image in inputs["pixel_values"]]

    # An end that is never written: a least length would mask the vocabulary in every step.
    endless = {"eos_token_id": scale.config.text_config.vocab_size, "pad_token_id": 0, "do_sample": False}

    def generate(new_tokens: int, options: dict[str, Any]) -> None:
        model.generate(**inputs, **endless, **options, max_new_tokens=new_tokens)

    weights = language_bytes(model)
    bandwidth = copy_bandwidth(device)
    limit = weights / bandwidth
    caches: dict[str, dict[str, Any]] = {
        "decoding, dynamic cache": {},
        "decoding, static cache and compile": {"cache_implementation": "static"},
    }
    for name, options in caches.items():
        try:
            torch.compiler.reset()
            first, all_tokens = (
                seconds(partial(generate, new_tokens, options), device, scale.rounds)
                for new_tokens in (1, 1 + scale.new_tokens)
            )
            per_token = max(1e-9, all_tokens - first) / scale.new_tokens
            yield (
                name,
                {
                    "ms per token": 1e3 * per_token,
                    "first token ms": 1e3 * first,
                    "limit ms": 1e3 * limit,
                    "share of bandwidth": limit / per_token,
                },
            )
        except Exception as error:  # compilation fails in many ways; the other parts are still of use
            yield name, failure(error)


def language_bytes(model: VividMedForCausalLM) -> int:
    """Bytes of the weights that a decoded token reads: the language experts, norms and head."""
    unused = ("vision", "embed_tokens")
    return sum(
        parameter.numel() * parameter.element_size()
        for name, parameter in model.named_parameters()
        if not any(word in name for word in unused)
    )


def copy_bandwidth(device: torch.device) -> float:
    """Bytes per second that the device reads and writes in a large copy."""
    size = _COPY_BYTES if device.type == "cuda" else _COPY_BYTES // 64
    source = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / seconds(lambda: target.copy_(source), device, 5)


def lora(model: VividMedForCausalLM, scale: Scale, device: torch.device) -> Iterator[tuple[str, Figures]]:
    """Training with bf16 LoRA: padded and padding-free batches, then compiled, with and without checkpointing."""
    step = TrainingStep(adapt(model), scale, device)
    yield from largest(step, "bf16 LoRA", scale.batch)
    yield from padding(step, scale, device)
    compile_layers(model)
    yield from largest(step, "bf16 LoRA, compiled", scale.batch)
    model.activation_checkpointing_disable()
    yield from largest(step, "bf16 LoRA, compiled, not checkpointed", scale.batch)


def largest(step: TrainingStep, name: str, samples: int) -> Iterator[tuple[str, Figures]]:
    """Figures of full-length samples: as many as given, or three quarters of them until they fit."""
    while samples:
        title = f"{name}, {samples} x {step.scale.length} tokens"
        try:
            yield title, step.full(samples)
            return
        except torch.OutOfMemoryError as error:
            yield title, failure(error)
        clear(step)
        samples = 3 * samples // 4


def padding(step: TrainingStep, scale: Scale, device: torch.device) -> Iterator[tuple[str, Figures]]:
    """The same samples of mixed length, padded to the longest, and packed without padding."""
    shares = [1.0] + [0.3 + 0.1 * (number % 4) for number in range(scale.batch - 1)]
    samples = rows(scale, [int(share * scale.length) for share in shares])
    for name, packed in (("mixed lengths, padded", None), ("mixed lengths, padding-free", scale.length)):
        try:
            batch, size = collate(scale, samples, device, packed_length=packed)
            yield name, step.figures(batch, size)
        except torch.OutOfMemoryError as error:
            yield name, failure(error)
            clear(step)


def qlora(scale: Scale, device: torch.device) -> Iterator[tuple[str, Figures]]:
    """Training with NF4 weights and LoRA: memory of one sample, and the rate of a batch."""
    model = build(scale, device)
    quantize(model, scale.dtype)
    step = TrainingStep(adapt(model), scale, device)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    yield from largest(step, "QLoRA", 1)
    yield from largest(step, "QLoRA", scale.batch)
    compile_layers(model)
    yield from largest(step, "QLoRA, compiled", scale.batch)


def clear(step: TrainingStep) -> None:
    """Free what a step that ran out of memory has left."""
    step.optimizer.zero_grad()
    if step.device.type == "cuda":
        torch.cuda.empty_cache()


def failure(error: BaseException) -> Figures:
    """One line about what went wrong."""
    kind = "out of memory" if isinstance(error, torch.OutOfMemoryError) else type(error).__name__
    return {"failed": f"{kind}: {' '.join(str(error).split())[:160]}"}


PARTS: dict[str, Part] = {"language": language, "qlora": qlora}
