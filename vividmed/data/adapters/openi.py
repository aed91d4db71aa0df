"""OpenI, the Indiana University chest radiographs with reports, in the edition of Kaggle."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from vividmed.data.adapters.base import Adapter, Case, ImageFile, Skipped, read_table, register, report_turn
from vividmed.data.raw.report_text import clean_whitespace, drop_placeholders, view_name


@register
class OpenI(Adapter):
    name = "openi"
    title = "OpenI (Indiana University)"
    row_kind = "vision_language"
    modalities = ("X-ray",)
    licence = "CC BY-NC-ND 4.0 (not confirmed)"
    access = "open"
    redistribute = "no"
    terms = "The licence is taken to forbid sharing changed copies, such as prepared images."
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

    def cases(self, origin: Path) -> Iterator[Case | Skipped]:
        # A report and its images share the uid, which has gaps: the number of the row means nothing.
        images: dict[str, list[ImageFile]] = defaultdict(list)
        for row in read_table(origin / "indiana_projections.csv", "uid", "filename", "projection"):
            images[row["uid"]].append(
                ImageFile(
                    path=origin / "images/images_normalized" / row["filename"],
                    modality="X-ray",
                    plane=view_name(row["projection"]),
                )
            )
        for row in read_table(origin / "indiana_reports.csv", "uid", "findings", "impression"):
            uid = row["uid"]
            findings, impression = (
                drop_placeholders(clean_whitespace(row[name])) for name in ("findings", "impression")
            )
            if not images[uid]:
                yield Skipped(uid, "has no image")
            elif not findings or not impression:
                yield Skipped(uid, "findings or impression are empty, or nothing but removed words")
            else:
                yield Case(
                    id=uid, patient=uid, images=tuple(images[uid]), turns=(report_turn(findings, impression),)
                )
