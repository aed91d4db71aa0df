"""M3D: CT series of Radiopaedia as numbered slices, with their findings (M3D-Cap) and questions (M3D-VQA)."""

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath

from vividmed.data.adapters.base import (
    Adapter,
    Case,
    ImageFile,
    Listed,
    QuestionAnswer,
    Skipped,
    Split,
    TableRow,
    each_case,
    official_split,
    read_table,
    register,
    report_turn,
    vqa_turns,
)
from vividmed.data.raw.documents import is_file, read_json, read_text
from vividmed.data.raw.report_text import clean_text, view_name
from vividmed.data.raw.slices import read_slices
from vividmed.data.raw.splits import assign_splits
from vividmed.errors import VividMedError

_TERMS = (
    "Radiopaedia licenses its cases for non-commercial use; they must not be passed on without its consent."
)
_FINDINGS = re.compile(r"study_findings:(.*?)(?:\n\w+:|\Z)", re.DOTALL)
_SHORTEST = 5
_PARTS: tuple[tuple[str, Split], ...] = (("train", "train"), ("val", "validation"), ("test", "test"))


class _M3D(Adapter):
    row_kind = "vision_language"
    modalities = ("CT",)
    licence = "Radiopaedia, non-commercial"
    access = "registered"
    redistribute = "no"
    terms = _TERMS
    citation = (
        "Bai et al. M3D: Advancing 3D Medical Image Analysis with Multi-Modal Large Language Models. "
        "arXiv:2404.00578, 2024."
    )
    patients = "m3d-cap"
    published_split = True
    max_depth = 128
    max_in_plane = 256


@register
class M3DCap(_M3D):
    name = "m3d-cap"
    title = "M3D-Cap"
    homepage = "https://huggingface.co/datasets/GoodBaiBai88/M3D-Cap"
    layout = {"M3D_Cap/M3D_Cap.json": 1, "M3D_Cap/ct_case/*/text.txt": None}
    gigabytes = 978.0

    def cases(self, origin: Path) -> Iterator[Listed]:
        listed = _listed_series(origin / "M3D_Cap/M3D_Cap.json")
        yield from each_case(
            ((str(series), (series, split)) for series, split in listed.items()), partial(_caption, origin)
        )


@register
class M3DVQA(_M3D):
    """Rows follow the splits of M3D-Cap, whose images these are."""

    name = "m3d-vqa"
    title = "M3D-VQA"
    homepage = "https://huggingface.co/datasets/GoodBaiBai88/M3D-VQA"
    layout = {
        "M3D-VQA/M3D_VQA_train.csv": 1,
        "M3D-VQA/M3D_VQA_val.csv": 1,
        "M3D-VQA/M3D_VQA_test.csv": 1,
        "M3D_Cap/M3D_Cap.json": 1,
    }
    gigabytes = 978.0

    def cases(self, origin: Path) -> Iterator[Listed]:
        owner = _listed_series(origin / "M3D_Cap/M3D_Cap.json")
        rows: dict[str, tuple[Split, list[TableRow]]] = {}
        for part, split in _PARTS:
            for row in read_table(origin / f"M3D-VQA/M3D_VQA_{part}.csv", "Image Path", "Question", "Answer"):
                rows.setdefault(row["Image Path"], (split, []))[1].append(row)
        yield from each_case(rows.items(), partial(_questions, origin, owner))


def _caption(origin: Path, item: tuple[PurePosixPath, Split]) -> Case | Skipped:
    series, split = item
    text = origin / "M3D_Cap" / series.parent / "text.txt"
    if not is_file(text):
        return Skipped(str(series), "its text is missing")
    match = _FINDINGS.search(read_text(text))
    findings = clean_text(match[1]) if match else ""
    if len(findings) < _SHORTEST:
        return Skipped(str(series), "its text has no findings")
    return _case(origin, series, split, (report_turn(findings),))


def _questions(
    origin: Path, owner: Mapping[PurePosixPath, Split], item: tuple[Split, list[TableRow]]
) -> Case | Skipped:
    split, rows = item
    series = _series(rows[0]["Image Path"])
    turns = tuple(vqa_turns((row["Question"], row["Answer"]) for row in rows))
    if not turns:
        return Skipped(str(series), "it has no question with an answer")
    return _case(origin, series, owner.get(series, split), turns)


def _case(origin: Path, series: PurePosixPath, split: Split, turns: tuple[QuestionAnswer, ...]) -> Case:
    folder = origin / "M3D_Cap" / series
    return Case(
        id=str(series),
        patient=_patient(series),
        split=split,
        images=(ImageFile(path=folder, modality="CT", plane=_plane(series.name), read=read_slices),),
        turns=turns,
    )


def _listed_series(path: Path) -> dict[PurePosixPath, Split]:
    """Every series of M3D-Cap and its official split; a case in several splits gets the most held out of them."""
    content = read_json(path)
    try:
        listed = {
            _series(entry["image"]): split
            for part, entries in content.items()
            if (split := official_split(part))
            for entry in entries
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise VividMedError(f"{path}: not in the form {{split: [{{image, text}}]}} ({error!r})") from error
    # M3D-VQA asks about some series only: without the others, a case could get another split there.
    splits = assign_splits((_patient(series), split) for series, split in listed.items())
    return {series: splits[_patient(series)] for series in listed}


def _series(path: str) -> PurePosixPath:
    """``ct_case/000006/Axial_C`` from the path of an image, which names a converted array."""
    parts = PurePosixPath(path).parts
    if len(parts) < 3 or ".." in parts:
        raise VividMedError(
            f"{path!r} is not the path of a series of M3D-Cap; paths end in ct_case/<case>/<series>.npy"
        )
    return PurePosixPath(*parts[-3:-1], parts[-1].removesuffix(".npy"))


def _patient(series: PurePosixPath) -> str:
    return f"{series.parts[0]}/{series.parts[1]}"


def _plane(name: str) -> str | None:
    """The names of series begin with the plane: ``Axial_C__portal_venous_phase``."""
    return view_name(re.split(r"[^A-Za-z]", name, maxsplit=1)[0])
