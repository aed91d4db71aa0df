"""Wall time of one report by ``Predictor`` against bare ``generate`` of the same model on the same inputs.

    python -m benchmarks.report outputs/grg ct.nii.gz

Both read nothing and prepare the image once; the bare run only writes, the report also finds its phrases and puts them
on the voxels of the image. Runs alternate, so that other work on the machine meets both, and the ratio is the median
over the rounds. Processor seconds of all threads are printed too: they hardly depend on other work.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch

from vividmed.inference.predictor import REPORT_QUESTION, Predictor
from vividmed.processing.reading import read_image

TARGET = 1.15
"""Largest ratio."""


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; returns 1 if the ratio is above the target."""
    parser = argparse.ArgumentParser(prog="benchmarks.report", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="folder or repository of a model that grounds")
    parser.add_argument("scan", help="file or folder of one scan")
    parser.add_argument("--device", help="default: the accelerator, if there is one")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args(arguments)
    predictor = Predictor(args.model, device=args.device, dtype=getattr(torch, args.dtype))
    image = read_image(args.scan)
    options = {"max_new_tokens": args.max_new_tokens, "do_sample": False}

    def write() -> int:
        batch = predictor.processor(images=image, text=REPORT_QUESTION, grounding=True)
        batch = batch.to(predictor.model.device)
        with torch.no_grad():
            written = predictor.model.generate(**batch, **options)
        return written.shape[1] - batch["input_ids"].shape[1]

    def report() -> int:
        result = predictor(image, max_new_tokens=args.max_new_tokens)
        return len(result.grounded.phrases)

    tokens, phrases = write(), report()
    bare, whole = [], []
    for _ in range(args.rounds):
        bare.append(measure(write))
        whole.append(measure(report))
    size = "x".join(map(str, image.size))
    print(f"image {size}, {tokens} new tokens, {phrases} phrases, {args.rounds} rounds")
    print(f"{'':12}{'bare generate':>15}{'report':>10}{'ratio':>8}")
    ratios = []
    for number, name in enumerate(("wall time", "processor")):
        of_bare, of_whole = ([times[number] for times in runs] for runs in (bare, whole))
        ratios.append(statistics.median(a / b for a, b in zip(of_whole, of_bare, strict=True)))
        middle = statistics.median(of_bare), statistics.median(of_whole)
        print(f"{name:12}{middle[0]:13.3f} s{middle[1]:8.3f} s{ratios[-1]:8.2f}")
    print(f"target: wall time at most {TARGET} times")
    return int(ratios[0] > TARGET)


def measure(call: Callable[[], object]) -> tuple[float, float]:
    """Wall time of a call, with the work of the accelerator finished, and processor seconds of all threads."""
    wall, processor = time.perf_counter(), time.process_time()
    call()
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter() - wall, time.process_time() - processor


if __name__ == "__main__":
    sys.exit(main())
