"""A COCO file with boxes of the heart in chest radiographs: a JSON file and a folder of PNG files.

    python -m benchmarks.journeys.boxes boxes

The radiographs are those of the embedded sample, projected from CT. Each chest is a patient, and the file says which
split it belongs to.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from vividmed.data.sample import load_sample

TARGET = "heart"


def write_boxes(folder: Path) -> Path:
    """Write the images and the COCO file, and return its path."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for split, rows in load_sample("localization").items():
        for row in rows:
            boxes = [each["box"] for each in row["boxes"] if each["target"] == TARGET]
            if row["modality"] != "X-ray" or not boxes:
                continue
            image, name = row["images"][0], f"{len(images):02d}.png"
            image.save(folder / "images" / name)
            size = {"width": image.width, "height": image.height}
            facts = {"patient_id": row["patient"], "split": split}
            images.append({"id": len(images), "file_name": name, **size, **facts})
            for _, y0, x0, _, y1, x1 in boxes:
                drawn = {"image_id": len(images) - 1, "category_id": 1, "bbox": [x0, y0, x1 - x0, y1 - y0]}
                annotations.append({"id": len(annotations), **drawn})
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": TARGET}],
    }
    path = folder / "boxes.json"
    path.write_text(json.dumps(content))
    return path


def main(arguments: list[str] | None = None) -> int:
    """Write the material into the given folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    print(write_boxes(parser.parse_args(arguments).folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
