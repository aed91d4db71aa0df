"""Write reports, answer questions, and find what is named, in one scan or many.

    vividmed predict ct.nii.gz --model outputs/grg --output results
    vividmed predict scans/ 'more/*.png' list.csv --model outputs/grg --output results --formats json,html
    vividmed predict ct.nii.gz --model outputs/vlm --task vqa --prompt "What is the modality?" --output results
    vividmed predict ct.nii.gz --model outputs/grg --task segment --targets "left kidney,spleen" --output results
    vividmed predict ct.nii.gz --model outputs/grg --task ground --text report.txt --output results

Inputs are NIfTI, DICOM, PNG or JPEG files, folders (of a DICOM series, or of scans), globs, and CSV lists. Each scan gets
a folder with result.json, overlay.png, report.html and masks. Safe to interrupt: run the command again to resume. Not
for diagnosis. See docs/use.md.
"""

import argparse
from pathlib import Path
from typing import Any

from shtab import DIRECTORY, FILE

from vividmed.cli.parser import positive_int
from vividmed.errors import VividMedError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``vividmed predict``."""
    inputs = parser.add_argument("inputs", nargs="+", metavar="INPUT", help="file, folder, glob or CSV list")
    inputs.complete = FILE  # type: ignore[attr-defined]
    model = parser.add_argument(
        "--model", required=True, help="folder or repository of a model or an adapter"
    )
    model.complete = DIRECTORY  # type: ignore[attr-defined]
    parser.add_argument("--output", type=Path, help="folder of the results")
    parser.add_argument(
        "--task", default="report", choices=("report", "vqa", "segment", "ground"), help="default: report"
    )
    parser.add_argument("--prompt", help="the question; replaces that of --task report")
    parser.add_argument("--targets", help="what to segment, separated by commas")
    text = parser.add_argument("--text", type=Path, help="file with the report to ground")
    text.complete = FILE  # type: ignore[attr-defined]
    parser.add_argument(
        "--formats", default="json,png,html,nifti", help="separated by commas (default: json,png,html,nifti)"
    )
    parser.add_argument("--chat", action="store_true", help="ask questions about one scan in turn")
    parser.add_argument("--full-resolution", action="store_true", help="draw masks on the image's own voxels")
    parser.add_argument(
        "--max-new-tokens", type=positive_int, default=512, help="longest text (default: 512)"
    )
    parser.add_argument("--overwrite", action="store_true", help="predict again what has a result")
    parser.add_argument("--device", help="such as cpu or cuda:0 (default: the accelerator, if there is one)")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="default: float32"
    )
    parser.add_argument("--load-in-4bit", action="store_true", help="quantise the model (needs bitsandbytes)")


def run(args: argparse.Namespace) -> int:
    """Predict every scan; returns 1 if some failed."""
    from vividmed.inference.results import check_formats
    from vividmed.inference.scans import find_scans

    formats = [name.strip() for name in args.formats.split(",") if name.strip()]
    check_formats(formats)
    scans = find_scans(args.inputs)
    options = _options(args)
    if args.output is None and not args.chat:
        raise VividMedError("--output is missing; name a folder for the results")

    import torch

    from vividmed.inference.predictor import Predictor

    predictor = Predictor(
        args.model, device=args.device, dtype=getattr(torch, args.dtype), load_in_4bit=args.load_in_4bit
    )
    if args.chat:
        return _chat(predictor, scans, args.max_new_tokens)
    return _predict(predictor, scans, args, formats, options)


def _options(args: argparse.Namespace) -> dict[str, Any]:
    text = None
    if args.text is not None:
        try:
            text = args.text.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise VividMedError(
                f"--text {args.text}: cannot be read ({error}); give a UTF-8 text file"
            ) from error
    needed = {"vqa": ("prompt", args.prompt), "segment": ("targets", args.targets), "ground": ("text", text)}
    if args.task in needed and not (needed[args.task][1] or "").strip():
        raise VividMedError(f"--task {args.task} needs --{needed[args.task][0]}")
    return {
        "task": args.task,
        "prompt": args.prompt,
        "targets": (args.targets or "").split(","),
        "text": text,
        "full_resolution": args.full_resolution,
        "max_new_tokens": args.max_new_tokens,
    }


def _predict(
    predictor: Any, scans: list[Any], args: argparse.Namespace, formats: list[str], options: dict[str, Any]
) -> int:
    import csv
    import io

    from tqdm import tqdm

    from vividmed.files import write_atomically
    from vividmed.inference.results import RESULT, save_result

    failures: list[tuple[str, str]] = []
    done = 0
    for scan in tqdm(scans, unit="scan", disable=len(scans) == 1):
        folder = args.output / scan.name
        if (folder / RESULT).is_file() and not args.overwrite:
            done += 1
            continue
        try:
            result = predictor(scan.path, **options)
        except VividMedError as error:
            failures.append((str(scan.path), str(error)))
            continue
        save_result(result, folder, formats=formats, run={"model": args.model})
        if len(scans) == 1:
            print(result.grounded.text)
    report = args.output / "failures.csv"
    if failures:
        stream = io.StringIO()
        csv.writer(stream, lineterminator="\n").writerows([("scan", "error"), *failures])
        write_atomically(report, stream.getvalue())
    else:
        report.unlink(missing_ok=True)
    earlier = f", {done} had a result" if done else ""
    print(f"{args.output}: {len(scans) - done - len(failures)} scans predicted{earlier}")
    for path, reason in failures[:5]:
        print(f"failed: {path}: {reason}")
    if failures:
        print(f"{len(failures)} scans failed; see {report}")
    return 1 if failures else 0


def _chat(predictor: Any, scans: list[Any], max_new_tokens: int) -> int:
    """Questions from standard input, answered with the conversation so far; an empty line ends it."""
    from vividmed.processing.reading import read_image

    if len(scans) != 1:
        raise VividMedError(f"--chat is about one scan, not {len(scans)}")
    image = read_image(scans[0].path)
    messages: list[dict[str, str]] = []
    while True:
        try:
            question = input("> ").strip()
        except EOFError:
            return 0
        if not question:
            return 0
        messages.append({"role": "user", "content": question})
        batch = predictor.processor(images=image, conversations=messages).to(predictor.model.device)
        output = predictor.model.generate(**batch, max_new_tokens=max_new_tokens, do_sample=False)
        length = batch["input_ids"].shape[1]
        (answer,) = predictor.processor.post_process_text(output, prompt_length=length)
        print(answer.text, flush=True)
        messages.append({"role": "assistant", "content": answer.text})
