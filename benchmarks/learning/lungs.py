"""Lungs by phrase on patients that were held out: does stage ``vg`` of ``make stages`` find them?

    make stages
    vividmed evaluate predict outputs/vg --task ground --output predictions/vg
    python -m benchmarks.learning.lungs predictions/vg --overlays overlays

Reads the predictions about the held-out split of the embedded sample and prints the Dice of the phrases "left lung" and
"right lung", on the grid of each image, by patient and kind of image. With ``--overlays``, the images are drawn with
the masks of both phrases. The exit status is 1 if the target is missed.
"""

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.learning.table import Figure, conclude
from vividmed.data.batches.examples import read_images
from vividmed.data.sample import load_sample
from vividmed.export import overlay
from vividmed.metrics.masks import decode_mask
from vividmed.metrics.predictions import PlacedPhrase, Prediction, read_predictions
from vividmed.processing.grounded_text import GroundedText, Phrase

LUNGS = ("left lung", "right lung")
_TARGET = 0.85
_PLANES = ("axial", "coronal", "sagittal")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("predictions", type=Path, help="folder of vividmed evaluate predict --task ground")
    parser.add_argument("--overlays", type=Path, help="folder for PNG files of the images with their masks")
    args = parser.parse_args(arguments)
    started = time.perf_counter()
    items = [item for item in read_predictions(args.predictions) if lungs_of(item)]
    values: dict[str, list[float]] = defaultdict(list)
    for item in items:
        for phrase, reference in lungs_of(item):
            dice = dice_of(phrase, reference)
            for group in (item.patient, f"{item.patient}, {kind_of(item)}", reference.target, "all"):
                values[group].append(dice)
        values["lungs of an image together, whichever the phrase"].append(union_dice(item))
    if not values:
        parser.error(f"{args.predictions} has no predictions about lungs; make them with --task ground")
    mean = values.pop("all")
    figures = [
        Figure(f"{group} ({len(dice)} masks)", float(np.mean(dice))) for group, dice in sorted(values.items())
    ]
    if args.overlays is not None:
        draw(items, args.overlays)
    return conclude(
        [*figures, Figure(f"lungs by phrase ({len(mean)} masks)", float(np.mean(mean)), _TARGET)],
        started=started,
    )


def lungs_of(item: Prediction) -> list[tuple[PlacedPhrase, PlacedPhrase]]:
    """The predicted and the true place of each lung that the image shows."""
    return [
        (phrase, reference)
        for phrase, reference in zip(item.phrases, item.references, strict=True)
        if reference.target in LUNGS and reference.mask is not None
    ]


def dice_of(phrase: PlacedPhrase, reference: PlacedPhrase) -> float:
    """Dice coefficient of a predicted mask; 0 where nothing was drawn."""
    return _dice(_union([phrase]), _union([reference]))


def union_dice(item: Prediction) -> float:
    """Dice coefficient of all lungs that the image shows, as one mask."""
    phrases, references = zip(*lungs_of(item), strict=True)
    return _dice(_union(phrases), _union(references))


def _union(places: Sequence[PlacedPhrase]) -> np.ndarray | None:
    masks = [decode_mask(place.mask) for place in places if place.mask is not None]
    return np.logical_or.reduce(masks) if masks else None


def _dice(found: np.ndarray | None, true: np.ndarray | None) -> float:
    if found is None or true is None:
        return 0.0
    return float(2 * (found & true).sum() / (found.sum() + true.sum()))


def kind_of(item: Prediction) -> str:
    """Plane of a slice, ``volume``, or the modality."""
    if item.size[0] > 1:
        return "volume"
    return next((plane for plane in _PLANES if f"-{plane}-" in item.id), item.modality)


def draw(items: Sequence[Prediction], folder: Path) -> None:
    """Draw the predicted lungs of each image with their Dice coefficients into ``folder``."""
    rows = load_sample("localization", split="test")
    places = {identifier: number for number, identifier in enumerate(rows["id"])}
    for item in items:
        (image,) = read_images(rows[places[item.id]])
        text, phrases = "", []
        for phrase, reference in lungs_of(item):
            text += ", " if text else ""
            start, mask = len(text), None if phrase.mask is None else decode_mask(phrase.mask)
            text += reference.target
            phrases.append(Phrase(reference.target, start, len(text), mask=mask))
            text += f" {dice_of(phrase, reference):.2f}"
        picture = overlay(
            image, GroundedText(f"Dice: {text}", [_moved(phrase, 6) for phrase in phrases]), width=480
        )
        folder.mkdir(parents=True, exist_ok=True)
        # Few colours make a small file.
        picture.quantize(64).save(folder / f"{item.id}.png", optimize=True)


def _moved(phrase: Phrase, by: int) -> Phrase:
    return Phrase(phrase.text, phrase.start + by, phrase.end + by, mask=phrase.mask)


if __name__ == "__main__":
    sys.exit(main())
