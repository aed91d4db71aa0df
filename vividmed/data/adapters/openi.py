"""OpenI, the Indiana University chest radiographs with reports, in the edition of Kaggle."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from vividmed.data.adapters.base import (
    Adapter,
    Case,
    ImageFile,
    Listed,
    Skipped,
    TableRow,
    below,
    each_case,
    read_table,
    register,
    report_turn,
)
from vividmed.data.raw.report_text import clean_text, drop_placeholders, view_name


@register
class OpenI(Adapter):
    name = "openi"
    title = "OpenI (Indiana University)"
    row_kind = "vision_language"
    modalities = ("X-ray",)
    licence = "CC BY-NC-ND 4.0 (not confirmed)"
    access = "open"
    redistribute = "no"
    terms = "The licence is understood to forbid sharing changed copies, such as prepared images."
    homepage = "https://www.kaggle.com/datasets/raddar/chest-xrays-indiana-university"
    citation = (
        "Demner-Fushman et al. Preparing a collection of radiology examinations for distribution and retrieval. "
        "Journal of the American Medical Informatics Association 23, 2016."
    )
    layout = {
        "images/images_normalized/*.png": 7470,
        "indiana_reports.csv": 1,
        "indiana_projections.csv": 1,
    }
    gigabytes = 14.0

    def cases(self, origin: Path) -> Iterator[Listed]:
        # A report and its images share the uid, which has gaps: the number of the row means nothing.
        images: dict[str, list[TableRow]] = defaultdict(list)
        for row in read_table(origin / "indiana_projections.csv", "uid", "filename", "projection"):
            images[row["uid"]].append(row)
        reports = read_table(origin / "indiana_reports.csv", "uid", "findings", "impression")
        make = partial(_case, folder=origin / "images/images_normalized", images=images)
        yield from each_case(((row["uid"], row) for row in reports), make)


def _case(report: TableRow, *, folder: Path, images: Mapping[str, list[TableRow]]) -> Case | Skipped:
    uid = report["uid"]
    findings, impression = (
        drop_placeholders(clean_text(report[name])) for name in ("findings", "impression")
    )
    if uid not in images:
        return Skipped(uid, "it has no image")
    if not findings or not impression:
        return Skipped(uid, "its findings or impression are empty or contain only removed words")
    return Case(
        id=uid,
        patient=uid,
        images=tuple(
            ImageFile(
                path=below(folder, row["filename"]), modality="X-ray", plane=view_name(row["projection"])
            )
            for row in images[uid]
        ),
        turns=(report_turn(findings, impression),),
    )
