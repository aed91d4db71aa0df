"""A table of 30 questions about chest radiographs, as a clinic might have it: a CSV file and a folder of PNG files.

    python -m benchmarks.journeys.questions questions

The radiographs are those of the embedded sample: two chests projected from CT, and one real radiograph series. Each chest
is a patient, and a column says which split it belongs to.
"""

import argparse
import csv
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vividmed.data.sample import load_sample

SPLITS = {"chest-ct-a": ("train", 20), "chest-xray-b": ("validation", 4), "chest-ct-b": ("test", 6)}
"""Split of each patient, and its number of questions."""
COLUMNS = ("image", "question", "answer", "patient", "split")


def radiographs() -> dict[str, list[Mapping[str, Any]]]:
    """Rows with a chest radiograph of known view, by patient, each image once."""
    found: dict[str, dict[bytes, Mapping[str, Any]]] = {patient: {} for patient in SPLITS}
    for rows in load_sample("vision_language").values():
        wanted = [
            index
            for index, row in enumerate(rows.select_columns(["modality", "patient", "plane"]))
            if row["modality"] == "X-ray"
            and row["patient"] in found
            and row["plane"] in ("frontal", "lateral")
        ]
        for row in rows.select(wanted):
            found[row["patient"]].setdefault(row["images"][0].tobytes(), row)
    return {patient: list(rows.values()) for patient, rows in found.items()}


def questions(rows: list[Mapping[str, Any]], number: int) -> Iterator[tuple[Mapping[str, Any], str, str]]:
    """Row, question and answer: an open question about every image, then closed ones."""
    asked = [(row, "Is this a frontal or a lateral radiograph?", row["plane"]) for row in rows]
    asked += [
        (row, f"Is this a {plane} view of the chest?", "yes" if row["plane"] == plane else "no")
        for plane in ("lateral", "frontal")
        for row in rows
    ]
    yield from asked[:number]


def write_questions(folder: Path) -> Path:
    """Write the images and the table, and return its path."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    table = folder / "questions.csv"
    with table.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        for patient, rows in radiographs().items():
            split, number = SPLITS[patient]
            names = {id(row): f"{patient}-{place:02d}.png" for place, row in enumerate(rows)}
            for row, question, answer in questions(rows, number):
                path = images / names[id(row)]
                if not path.exists():
                    row["images"][0].save(path)
                values = (path.name, question, answer, patient, split)
                writer.writerow(dict(zip(COLUMNS, values, strict=True)))
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("folder", type=Path, help="folder of the table and its images")
    print(write_questions(parser.parse_args().folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
