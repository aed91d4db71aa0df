"""Draw a report of the sample data with the masks that its rows have: ``python docs/images/grounded_report.py``.

The picture shows labels, not the output of a model.
"""

import sys
from pathlib import Path

from vividmed import read_image
from vividmed.data.masks import unpack_mask
from vividmed.data.sample import load_sample
from vividmed.export import overlay
from vividmed.processing.grounded_text import GroundedText, Phrase

ROW = "chest-ct-a-coronal-04-report"


def main(row_id: str = ROW, path: str = str(Path(__file__).with_suffix(".png"))) -> None:
    """Draw the row with this id into a PNG file."""
    rows = load_sample("grounded_report", "train")
    row = rows[rows["id"].index(row_id)]
    image = read_image((row["volumes"] or row["images"])[0])
    masks = {mask["target"]: unpack_mask(mask, image.size) for mask in row["masks"]}
    phrases = [
        Phrase(
            phrase["text"],
            phrase["start"],
            phrase["end"],
            mask=sum(masks[target] for target in phrase["targets"]) > 0,
        )
        for phrase in row["phrases"]
    ]
    text = row["report"].replace("<p>", "").replace("</p>", "")
    picture = overlay(image, GroundedText(text, phrases), width=720)
    # Few colours make a small file; the fills have no gradients to lose.
    picture.quantize(128).save(path, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
