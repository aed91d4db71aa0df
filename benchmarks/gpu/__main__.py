"""Speed and memory of the true-size 17B model with random weights, on one GPU and without a network.

    python -m benchmarks.gpu [--output gpu.json] [--parts language qlora]
    python -m benchmarks.gpu --tiny   # the same program on the tiny model and the CPU, in seconds

It measures: a forward pass with each attention implementation; decoding with a dynamic cache, and with a static one and
compiled, against the memory bandwidth; bf16 LoRA (model FLOPs utilisation), also with compiled layers and without
checkpointed activations; padded against padding-free batches; QLoRA (peak memory and rate). Building the model needs
40 GB of GPU memory. A part that runs out of memory or fails is reported as such, and the others go ahead. After
``--minutes``, what has not started is left out. Figures go to a JSON file as they come, so that an interrupted run loses
nothing.
"""

import argparse
import gc
import json
import sys
import time
from pathlib import Path

import torch
import transformers

from benchmarks.gpu.model import Scale
from benchmarks.gpu.parts import PARTS, Figures, failure
from vividmed.files import write_atomically

TARGETS = {"MFU": 0.45, "share of bandwidth": 0.60}


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and write; the exit status is 1 if every part failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiny", action="store_true", help="tiny sizes on the CPU")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="default: all")
    parser.add_argument("--output", type=Path, default=Path("gpu.json"), help="default: gpu.json")
    parser.add_argument(
        "--minutes", type=float, default=8.0, help="start nothing after this time (default: 8)"
    )
    options = parser.parse_args(arguments)
    if not options.tiny and not torch.cuda.is_available():
        print("error: no CUDA device was found; --tiny runs on a CPU", file=sys.stderr)
        return 2
    device = torch.device("cpu" if options.tiny else "cuda")
    scale = Scale.tiny() if options.tiny else Scale.published()
    name = "CPU, tiny sizes" if options.tiny else torch.cuda.get_device_name(device)
    report: dict[str, object] = {
        "device": name,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    figures: dict[str, Figures] = {}
    print(f"{name}, torch {torch.__version__}, transformers {transformers.__version__}")
    end = time.monotonic() + 60 * options.minutes
    for part in options.parts:
        try:
            for title, found in PARTS[part](scale, device):
                figures[title] = found
                print(line(title, found), flush=True)
                write_atomically(options.output, json.dumps(report | {"figures": figures}, indent=1) + "\n")
                if time.monotonic() > end:
                    print(f"stopped after {options.minutes:g} minutes")
                    return 0
        except Exception as error:  # the next part builds its own model
            figures[part] = failure(error)
            print(line(part, figures[part]), flush=True)
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    write_atomically(options.output, json.dumps(report | {"figures": figures}, indent=1) + "\n")
    return int(all("failed" in found for found in figures.values()))


def line(title: str, figures: Figures) -> str:
    """A row of the table."""
    cells = []
    for name, value in figures.items():
        if value is None:
            continue
        target = f" (target {TARGETS[name]:.0%})" if name in TARGETS else ""
        shown = (
            f"{value:.1%}" if name in TARGETS else f"{value:.4g}" if isinstance(value, float) else str(value)
        )
        cells.append(f"{name} {shown}{target}")
    return f"{title:<54}{', '.join(cells)}"


if __name__ == "__main__":
    sys.exit(main())
