"""Measure where the time of a grounded report goes, on the tiny model with random weights.

    python -m benchmarks.inference [--rounds 5] [--new-tokens 32]

The first table lists the parts of one report about one volume: processor, vision tower, prompt, decoding, grounding and
export. The others list the cost, and the ratio of ``generate_grounded`` to ``generate``, for different numbers of slices,
phrases and samples per batch. Texts are forced, so that an untrained model writes a given number of phrases. All runs of
a table take turns. Times are CPU seconds, because other programs may share the machine.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessor, LogitsProcessorList

from benchmarks.timing import alternate, median, ratio
from vividmed import VividMedConfig, VividMedForCausalLM, VividMedProcessor
from vividmed.export import overlay, save_masks
from vividmed.processing.medical_image import MedicalImage

QUESTION = "Can you provide a radiology report for this medical image?"
AFFINE = np.diag([-1.5, -1.5, 3.0, 1.0])


class Script(LogitsProcessor):
    """Forces the model to write given tokens, and to end after them.

    Args:
        tokens: tokens to write.
        prompt_length: number of tokens before them.
    """

    def __init__(self, tokens: list[int], prompt_length: int):
        self.tokens = tokens
        self.prompt_length = prompt_length

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        written = input_ids.shape[1] - self.prompt_length
        forced = torch.full_like(scores, float("-inf"))
        forced[:, self.tokens[min(written, len(self.tokens) - 1)]] = 0
        return forced


class Workload:
    """A batch of volumes and the text that is to be written about each.

    Args:
        model: tiny model with segmenters.
        processor: its processor.
        slices: depth of the volumes.
        phrases: phrases in the text.
        samples: volumes in the batch.
        new_tokens: least number of tokens of the text.
    """

    def __init__(
        self,
        model: VividMedForCausalLM,
        processor: VividMedProcessor,
        *,
        slices: int = 16,
        phrases: int = 4,
        samples: int = 1,
        new_tokens: int = 32,
    ):
        self.model = model
        self.processor = processor
        values = np.random.default_rng(0).integers(-1000, 1000, (1, slices, 96, 96), dtype=np.int16)
        self.image = MedicalImage(values, AFFINE, modality="CT", oriented=True)
        self.images = [self.image] * samples
        text = " ".join(["<p>liver</p>"] * phrases)
        tokens = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        filler = processor.tokenizer("normal", add_special_tokens=False)["input_ids"]
        tokens += filler * max(0, -(-(new_tokens - len(tokens)) // len(filler)))
        self.tokens = [*tokens, processor.tokenizer.eos_token_id]
        self.batch = self.process()

    def process(self) -> Any:
        """Prepare images and questions."""
        return self.processor(images=self.images, text=[QUESTION] * len(self.images), grounding=True)

    def _arguments(self, limit: int | None = None) -> dict[str, Any]:
        script = Script(self.tokens, self.batch["input_ids"].shape[1])
        return {
            "max_new_tokens": limit or len(self.tokens),
            "do_sample": False,
            "logits_processor": LogitsProcessorList([script]),
        }

    def generate(self, limit: int | None = None) -> Any:
        """Write without grounding."""
        inputs = {
            name: self.batch[name] for name in self.batch if name not in ("grounding_values", "geometry")
        }
        return self.model.generate(**inputs, **self._arguments(limit))

    def generate_grounded(self) -> Any:
        """Write and ground."""
        return self.model.generate_grounded(**self.batch, processor=self.processor, **self._arguments())

    @torch.no_grad()
    def see(self) -> Any:
        """Run the vision tower."""
        names = ("pixel_values", "patch_sizes", "pool_sizes")
        return self.model.get_image_features(*(self.batch[name] for name in names))

    def export(self, report: Any, folder: Path) -> None:
        """Write the overlay and the masks of a report."""
        overlay(self.image, report, folder / "overlay.png")
        save_masks(self.image, report, folder / "masks")


def parts(workload: Workload, rounds: int, folder: Path) -> None:
    """Print the parts of one report."""
    report = workload.generate_grounded()[0]
    times = alternate(
        {
            "processor": workload.process,
            "vision tower": workload.see,
            "first token": lambda: workload.generate(limit=1),
            "generate": workload.generate,
            "generate_grounded": workload.generate_grounded,
            "export": lambda: workload.export(report, folder),
        },
        rounds,
    )
    found = {name: median(times, name) for name in times}
    rows = {
        "processor": found["processor"],
        "vision tower": found["vision tower"],
        "prompt": found["first token"] - found["vision tower"],
        f"decoding {len(workload.tokens) - 1} tokens": found["generate"] - found["first token"],
        f"grounding {len(report.phrases)} phrases": found["generate_grounded"] - found["generate"],
        "export (overlay, masks)": found["export"],
    }
    total = sum(rows.values())
    print(f"{'part':<28}{'ms':>10}{'share':>8}")
    for name, value in rows.items():
        print(f"{name:<28}{1e3 * value:>10.1f}{value / total:>8.1%}")
    print(f"ratio generate_grounded / generate: {ratio(times, 'generate_grounded', 'generate'):.2f}")


def against(name: str, values: list[int], make: Callable[[int], Workload], rounds: int) -> None:
    """Print the cost for several values of one quantity."""
    workloads = {value: make(value) for value in values}
    runs: dict[str, Callable[[], object]] = {}
    for value, workload in workloads.items():
        runs[f"{value} process"] = workload.process
        runs[f"{value} generate"] = workload.generate
        runs[f"{value} ground"] = workload.generate_grounded
    times = alternate(runs, rounds)
    print(f"\n{name:<12}{'processor ms':>14}{'generate ms':>14}{'grounded ms':>14}{'ratio':>8}")
    for value in values:
        cells = [1e3 * median(times, f"{value} {part}") for part in ("process", "generate", "ground")]
        share = ratio(times, f"{value} ground", f"{value} generate")
        print(f"{value:<12}" + "".join(f"{cell:>14.1f}" for cell in cells) + f"{share:>8.2f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds after one warm-up (default: 5)")
    parser.add_argument("--new-tokens", type=int, default=32, help="least tokens per text (default: 32)")
    options = parser.parse_args()
    torch.manual_seed(0)
    processor = VividMedProcessor.tiny()
    config = VividMedConfig.tiny(vocab_size=len(processor.tokenizer), grounding=True)
    model = VividMedForCausalLM(config).eval()
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, CPU seconds, medians of {options.rounds} rounds"
    )

    def workload(**sizes: int) -> Workload:
        return Workload(model, processor, new_tokens=options.new_tokens, **sizes)

    with tempfile.TemporaryDirectory() as temporary:
        parts(workload(), options.rounds, Path(temporary))
    against("slices", [4, 16, 64], lambda value: workload(slices=value), options.rounds)
    against("phrases", [1, 4, 8], lambda value: workload(phrases=value), options.rounds)
    against("samples", [1, 2, 4], lambda value: workload(samples=value), options.rounds)


if __name__ == "__main__":
    main()
