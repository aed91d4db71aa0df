"""Labels by rule on the CTs of the embedded sample, against the labels that some of them come with.

    python -m benchmarks.learning.rules

Fetches the sample's archives, labels lungs and bone of every CT that has given labels of them by rule, and prints the
Dice of both. For the outline of the body, which no CT comes with, it prints the share of all given labels that lies
inside. The exit status is 1 if a target is missed.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.learning.table import Figure, conclude
from vividmed.data.sample.build import extract_sources, read_source
from vividmed.data.sample.rules import LUNGS, label_body, label_bone, label_lungs
from vividmed.data.sample.scan import Scan
from vividmed.data.sample.sources import ARCHIVES, VOLUMES, VolumeSource

_TARGET = 0.98


def main() -> int:
    argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0]).parse_args()
    started = time.perf_counter()
    sources = [source for source in VOLUMES if source.modality == "CT"]
    with tempfile.TemporaryDirectory(prefix="vividmed-rules-") as work:
        folders = extract_sources(ARCHIVES, sources, (), Path(work))
        figures = [
            figure
            for source in sources
            for figure in measure(source, read_source(source, folders[source.archive.package]))
        ]
    return conclude(figures, started=started)


def measure(source: VolumeSource, scan: Scan) -> Iterator[Figure]:
    """Compare the rules with what is labelled on a scan."""
    given = {target: scan.mask(target) for target in scan.targets}
    labelled = scan.labels > 0
    inside = label_body(scan.body)
    share = float((labelled & inside).sum() / labelled.sum())
    yield Figure(f"{source.name}: share of the given labels inside the body", share, _TARGET)
    if all(given.get(lung, labelled[:0]).any() for lung in LUNGS):
        found = label_lungs(scan.array, scan.spacing, scan.body)
        yield Figure(
            f"{source.name}: Dice of both lungs",
            dice(found[LUNGS[0]] | found[LUNGS[1]], given[LUNGS[0]] | given[LUNGS[1]]),
            _TARGET,
        )
    if given.get("bone", labelled[:0]).any():
        found_bone = label_bone(scan.array, scan.spacing, scan.body)
        yield Figure(f"{source.name}: Dice of bone", dice(found_bone, given["bone"]), _TARGET)


def dice(found: np.ndarray, given: np.ndarray) -> float:
    """Dice coefficient of two masks."""
    return float(2 * (found & given).sum() / (found.sum() + given.sum()))


if __name__ == "__main__":
    sys.exit(main())
