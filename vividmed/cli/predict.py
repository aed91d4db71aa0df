"""Write reports, answer questions, and find what is named, in one scan or many.

    vividmed predict ct.nii.gz --model outputs/grg --output results
    vividmed predict scans/ 'more/*.png' list.csv --model outputs/grg --output results --batch-size 4
    vividmed predict ct.nii.gz --model outputs/vlm --task vqa --prompt "What is the modality?" --output results
    vividmed predict ct.nii.gz --model outputs/grg --task segment --targets "left kidney,spleen" --output results
    vividmed predict --from-dicomweb URL --study UID --to-dicomweb URL --model outputs/grg

Inputs are NIfTI, DICOM, PNG or JPEG files, folders (of a DICOM series, or of scans), globs, and CSV lists. Each scan gets
a folder of its own. Safe to interrupt: run the command again to resume. Scans that fail are listed in failures.csv and
do not stop the others; the exit status is then 1. Not for diagnosis. See docs/use.md.
"""

import argparse
import contextlib
from pathlib import Path
from typing import Any

from shtab import DIRECTORY, FILE

from vividmed.cli.parser import positive_int
from vividmed.errors import VividMedError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``vividmed predict``."""
    inputs = parser.add_argument("inputs", nargs="*", metavar="INPUT", help="file, folder, glob or CSV list")
    inputs.complete = FILE  # type: ignore[attr-defined]
    _add_model(parser.add_argument_group("model"))
    _add_question(parser.add_argument_group("question"))
    _add_results(parser.add_argument_group("results"))
    archive = parser.add_argument_group("archive (PACS)")
    archive.add_argument("--from-dicomweb", metavar="URL", help="archive to take studies from")
    archive.add_argument("--study", nargs="+", metavar="UID", help="studies to take")
    archive.add_argument("--series", nargs="+", metavar="UID", help="only these series (default: all images)")
    archive.add_argument("--to-dicomweb", metavar="URL", help="archive to store SEG and SR in")


def _add_model(group: Any) -> None:
    model = group.add_argument("--model", required=True, help="folder or repository of a model or an adapter")
    model.complete = DIRECTORY
    group.add_argument("--device", help="such as cpu or cuda:0 (default: the accelerator, if there is one)")
    group.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="default: float32"
    )
    group.add_argument("--load-in-4bit", action="store_true", help="quantise the model (needs bitsandbytes)")
    group.add_argument(
        "--batch-size", type=positive_int, default=1, help="texts written together (default: 1)"
    )
    group.add_argument("--max-new-tokens", type=positive_int, default=512, help="longest text (default: 512)")


def _add_question(group: Any) -> None:
    group.add_argument(
        "--task",
        default="report",
        choices=("report", "vqa", "segment", "ground"),
        help="write a report, answer --prompt, segment --targets, or find the phrases of --text (default: report)",
    )
    group.add_argument("--prompt", help="the question; replaces that of --task report")
    group.add_argument("--targets", help="what to segment, separated by commas")
    text = group.add_argument("--text", type=Path, help="file with the report to ground")
    text.complete = FILE
    group.add_argument("--chat", action="store_true", help="ask questions about one scan in turn")
    group.add_argument("--full-resolution", action="store_true", help="draw masks on the image's own voxels")


def _add_results(group: Any) -> None:
    group.add_argument("--output", type=Path, help="folder of the results")
    group.add_argument(
        "--formats",
        default="json,png,html,nifti",
        metavar="LIST",
        help="of json,png,html,nifti,pdf,dicom-seg,dicom-sr,dicom-pdf (default: json,png,html,nifti)",
    )
    group.add_argument("--overwrite", action="store_true", help="predict again what has a result")


def run(args: argparse.Namespace) -> int:
    """Predict every scan; returns 1 if some failed."""
    from vividmed.inference.results import check_formats
    from vividmed.inference.scans import find_scans

    formats = [name.strip() for name in args.formats.split(",") if name.strip()]
    if not formats:
        raise VividMedError("--formats names no format; leave it out, or give some, such as json,png")
    check_formats(formats)
    options = _options(args)
    archives = _archives(args)
    scans = [] if archives else find_scans(args.inputs, results=args.output)
    if args.output is None and not args.chat and (archives is None or args.to_dicomweb is None):
        raise VividMedError("--output is missing; name a folder for the results")
    if args.output is not None and args.output.exists() and not args.output.is_dir():
        raise VividMedError(f"--output {args.output}: is a file; name a folder for the results")
    if args.chat:
        _check_chat(args, len(scans))

    predictor = _predictor(args)
    if args.chat:
        return _chat(predictor, scans, args.max_new_tokens)
    if archives is not None:
        return _predict_studies(predictor, archives, args, formats, options)
    from vividmed.files import alone_in

    with alone_in(args.output):
        return _predict(predictor, scans, args, formats, options)


def _check_chat(args: argparse.Namespace, scans: int) -> None:
    if scans != 1:
        raise VividMedError(f"--chat is about one scan, not {scans}")
    for name in ("output", "prompt", "targets", "text", "full_resolution"):
        if getattr(args, name):
            raise VividMedError(f"--chat does not use --{name.replace('_', '-')}; leave it out")


def _predictor(args: argparse.Namespace) -> Any:
    import torch

    from vividmed.inference.predictor import Predictor

    return Predictor(
        args.model, device=args.device, dtype=getattr(torch, args.dtype), load_in_4bit=args.load_in_4bit
    )


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
    if args.task in needed and not (needed[args.task][1] or "").replace(",", "").strip():
        raise VividMedError(f"--task {args.task} needs --{needed[args.task][0]}")
    return {
        "task": args.task,
        "prompt": args.prompt,
        "targets": (args.targets or "").split(","),
        "text": text,
        "full_resolution": args.full_resolution,
        "max_new_tokens": args.max_new_tokens,
    }


def _archives(args: argparse.Namespace) -> tuple[Any, Any] | None:
    """Source and destination; None for files. The bearer token is the environment variable DICOMWEB_TOKEN."""
    if args.from_dicomweb is None:
        for name in ("to_dicomweb", "study", "series"):
            if getattr(args, name) is not None:
                raise VividMedError(f"--{name.replace('_', '-')} needs --from-dicomweb")
        if not args.inputs:
            raise VividMedError("there is no input; name files, folders or lists, or use --from-dicomweb")
        return None
    if args.inputs or args.chat:
        raise VividMedError("--from-dicomweb takes no INPUT and no --chat; name studies with --study")
    if not args.study:
        raise VividMedError("--from-dicomweb needs --study: one or more StudyInstanceUIDs")
    import os
    import re

    from vividmed.pacs.client import Pacs

    for uid in [*args.study, *(args.series or ())]:
        if not re.fullmatch(r"[0-9.]{1,64}", uid):
            raise VividMedError("--study and --series take UIDs: up to 64 digits and dots")
    token = os.environ.get("DICOMWEB_TOKEN")
    source = Pacs(args.from_dicomweb, token=token)
    return source, None if args.to_dicomweb is None else Pacs(args.to_dicomweb, token=token)


def _predict(
    predictor: Any, scans: list[Any], args: argparse.Namespace, formats: list[str], options: dict[str, Any]
) -> int:
    from tqdm import tqdm

    from vividmed.inference.results import usable_formats

    failures: list[tuple[str, str]] = []
    not_dicom = 0
    run = {"model": args.model, "weights": predictor.identity, "asked": _asked(options), "formats": formats}
    left = [scan for scan in scans if args.overwrite or not _is_done(args.output / scan.name, scan, run)]
    with tqdm(total=len(left), unit="scan", disable=len(scans) == 1 or not left) as progress:
        for start in range(0, len(left), args.batch_size):
            batch = left[start : start + args.batch_size]
            results = predictor.predict_batch([scan.path for scan in batch], **options)
            for scan, result in zip(batch, results, strict=True):
                progress.update()
                try:
                    if isinstance(result, VividMedError):
                        raise result
                    usable = usable_formats(result.image, formats)
                    not_dicom += usable != formats
                    _save(result, args.output / scan.name, usable, {**run, "scan": scan.digest()})
                except VividMedError as error:
                    if _is_about_output(error, args.output):
                        raise
                    failures.append((str(scan.path), str(error)))
                    continue
                if len(scans) == 1:
                    print(result.grounded.text)
    done = len(scans) - len(left)
    earlier = f", {done} had a result" if done else ""
    print(f"{args.output}: {_count(len(left) - len(failures), 'scan')} predicted{earlier}")
    if not_dicom:
        print(f"DICOM formats left out: {_count(not_dicom, 'scan')} not read from DICOM")
    return _list_failures(failures, args.output, "scan")


def _asked(options: dict[str, Any]) -> dict[str, Any]:
    """Options that change the answer, in values that JSON preserves."""
    return {name: value for name, value in options.items() if value not in (None, False, [""])}


def _is_done(folder: Path, scan: Any, run: dict[str, Any]) -> bool:
    """Whether a folder has the result of this run for a scan, in all formats.

    Raises:
        VividMedError: it has the result of another scan, question or model.
    """
    from vividmed.inference.results import read_run

    earlier = read_run(folder)
    if earlier is None:
        return False
    run = {**run, "scan": scan.digest()}
    for name, what in (("scan", "scan"), ("asked", "question"), ("weights", "model")):
        if earlier.get(name, run[name]) != run[name]:
            raise VividMedError(
                f"{folder}: has the result of another {what}; use --overwrite to replace it, or another --output"
            )
    return set(run["formats"]) <= set(earlier.get("formats", run["formats"]))


def _save(result: Any, folder: Path, formats: list[str], run: dict[str, Any]) -> None:
    """Replace the result in a folder, which in the end has all of the new one or nothing."""
    from vividmed.inference.results import remove_result, save_result

    remove_result(folder)
    try:
        save_result(result, folder, formats=formats, run=run)
    except BaseException:
        with contextlib.suppress(VividMedError):
            remove_result(folder)
        raise


def _is_about_output(error: VividMedError, output: Path) -> bool:
    """Whether an error would stop all other scans too."""
    return str(error).startswith(f"{output}") and "cannot be written" in str(error)


def _count(number: int, one: str, several: str | None = None) -> str:
    return f"{number} {one if number == 1 else several or f'{one}s'}"


def _list_failures(failures: list[tuple[str, str]], output: Path | None, *what: str) -> int:
    """Write and print what failed; returns the exit status."""
    import csv
    import io

    from vividmed.files import write_atomically

    report = None if output is None else output / "failures.csv"
    if report is not None and failures:
        stream = io.StringIO()
        csv.writer(stream, lineterminator="\n").writerows([("scan", "error"), *failures])
        write_atomically(report, stream.getvalue())
    elif report is not None:
        report.unlink(missing_ok=True)
    for path, reason in failures[:5]:
        print("failed:", reason if reason.startswith(f"{path}: ") else f"{path}: {reason}")
    if failures:
        print(f"{_count(len(failures), *what)} failed{'' if report is None else f'; see {report}'}")
    return 1 if failures else 0


def _predict_studies(
    predictor: Any,
    archives: tuple[Any, Any],
    args: argparse.Namespace,
    formats: list[str],
    options: dict[str, Any],
) -> int:
    from tqdm import tqdm

    from vividmed.pacs.client import pseudonym
    from vividmed.pacs.worker import Question, process_studies

    source, destination = archives

    def keep(series: Any, result: Any) -> None:
        if args.output is not None:
            folder = args.output / f"study-{pseudonym(series.study)}" / f"series-{pseudonym(series.uid)}"
            _save(result, folder, formats, {"model": args.model})

    outcomes = process_studies(
        predictor,
        list(dict.fromkeys(args.study)),
        source=source,
        destination=destination,
        question=Question(options, args.model),
        series=args.series or (),
        keep=keep,
    )
    failures: list[tuple[str, str]] = []
    counts: dict[str, int] = {}
    for outcome in tqdm(outcomes, total=len(args.study), unit="study", disable=len(args.study) == 1):
        name = pseudonym(outcome.study)
        counts[outcome.state] = counts.get(outcome.state, 0) + 1
        failures += [(f"study {name}", reason) for reason in [outcome.error, *outcome.skipped] if reason]
    print(", ".join(f"{_count(count, 'study', 'studies')} {state}" for state, count in counts.items()))
    return _list_failures(failures, args.output, "study or series", "studies or series")


def _chat(predictor: Any, scans: list[Any], max_new_tokens: int) -> int:
    """Questions from standard input, answered with the conversation so far; an empty line ends it."""
    from vividmed.processing.reading import read_image

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
        answer = predictor.chat(image, messages, max_new_tokens=max_new_tokens)
        print(answer, flush=True)
        messages.append({"role": "assistant", "content": answer})
