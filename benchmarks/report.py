"""Wall time of one report by ``vividmed predict`` against bare ``generate`` of the same model on the same scan.

    python -m benchmarks.report outputs/grg ct.nii.gz

The bare run only writes text. The report also finds its phrases and puts them on the voxels of the image. Both are timed
in three ways:

- *command*: a program that loads the model, reads the scan and writes, against ``vividmed predict`` with its files;
- *from file*: in one process with the model loaded, from reading the scan to the text or the result;
- *in memory*: the same without reading the scan.

The target is that of the command. The other two show what grounding costs where a model stays loaded; with a tiny model,
whose segmenters compute about as much as its vision tower, that is more than with a large one.

Runs alternate, so that other work on the machine meets both, and each ratio is the median over the rounds.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from vividmed.inference.predictor import REPORT_QUESTION, Predictor
from vividmed.processing.reading import ImageSource, read_image

TARGET = 1.15
"""Largest ratio of the command, which is what a user waits for."""

_BARE = """
import sys
import torch
from benchmarks.report import load, write
model, scan, device, dtype, max_new_tokens = sys.argv[1:]
print(write(load(model, device or None, dtype), scan, int(max_new_tokens)))
"""


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; returns 1 if the ratio of the command is above the target."""
    parser = argparse.ArgumentParser(prog="benchmarks.report", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="folder or repository of a model that grounds")
    parser.add_argument("scan", help="file or folder of one scan")
    parser.add_argument("--device", help="default: the accelerator, if there is one")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--commands", type=int, default=3, help="rounds of whole commands")
    args = parser.parse_args(arguments)
    predictor = load(args.model, args.device, args.dtype)
    image = read_image(args.scan)

    def written(scan: ImageSource) -> Callable[[], object]:
        return lambda: write(predictor, scan, args.max_new_tokens)

    def reported(scan: ImageSource) -> Callable[[], object]:
        return lambda: predictor(scan, max_new_tokens=args.max_new_tokens)

    tokens = write(predictor, image, args.max_new_tokens)
    phrases = len(predictor(image, max_new_tokens=args.max_new_tokens).grounded.phrases)
    size = "x".join(map(str, image.size))
    print(
        f"image {size}, {tokens} new tokens, {phrases} phrases, {args.rounds} rounds ({args.commands} of commands)"
    )
    print(f"{'wall time':12}{'bare generate':>15}{'report':>10}{'ratio':>8}")
    with tempfile.TemporaryDirectory() as folder:
        ratio = compare("command", *commands(args, Path(folder)), args.commands)
    compare("from file", written(args.scan), reported(args.scan), args.rounds)
    compare("in memory", written(image), reported(image), args.rounds)
    print(f"target: at most {TARGET} times for the command")
    return int(ratio > TARGET)


def load(model: str, device: str | None, dtype: str) -> Predictor:
    """Load a model as both runs use it."""
    return Predictor(model, device=device, dtype=getattr(torch, dtype))


def write(predictor: Predictor, scan: ImageSource, max_new_tokens: int) -> int:
    """Read a scan and write the text of its report with nothing but ``generate``; returns the number of new tokens."""
    batch = predictor.processor(images=read_image(scan), text=REPORT_QUESTION, grounding=True)
    batch = batch.to(predictor.model.device)
    with torch.no_grad():
        output = predictor.model.generate(**batch, max_new_tokens=max_new_tokens, do_sample=False)
    return output.shape[1] - batch["input_ids"].shape[1]


def commands(args: argparse.Namespace, folder: Path) -> tuple[Callable[[], object], Callable[[], object]]:
    """The two programs: one that only writes, and ``vividmed predict`` into a folder."""
    tokens = str(args.max_new_tokens)
    bare = ["-c", _BARE, args.model, args.scan, args.device or "", args.dtype, tokens]
    predict = [
        "-m",
        "vividmed.cli.main",
        "predict",
        args.scan,
        "--model",
        args.model,
        "--output",
        str(folder),
    ]
    predict += ["--dtype", args.dtype, "--max-new-tokens", tokens, "--overwrite"]
    predict += ["--device", args.device] if args.device else []

    def start(words: list[str]) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, *words], check=True, capture_output=True)

    return start(bare), start(predict)


def compare(name: str, bare: Callable[[], object], report: Callable[[], object], rounds: int) -> float:
    """Time two runs in turn, print a line, and return the median ratio of their wall times."""
    times = [(measure(bare), measure(report)) for _ in range(rounds)]
    ratio = statistics.median(whole / part for part, whole in times)
    part, whole = (statistics.median(column) for column in zip(*times, strict=True))
    print(f"{name:12}{part:13.3f} s{whole:8.3f} s{ratio:8.2f}", flush=True)
    return ratio


def measure(call: Callable[[], object]) -> float:
    """Wall time of a call, with the work of the accelerator finished."""
    start = time.perf_counter()
    call()
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
