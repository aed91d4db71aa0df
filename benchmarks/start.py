"""The start of training: lengths of all rows with and without stored image grids, in one run.

    python -m benchmarks.start [--rows 1000000] [--read-rows 2000] [--workers 1]

Rows of one data set are made up: reports of 300 to 900 characters, two in three about a radiograph and the others about a
volume, every image of a size of its own. The images lie in the rows as they do after preparation. For ``grids`` the
lengths come from the column that every preparation writes. For ``headers``, the baseline, the column is left out, and the
headers of the images are read, as from data sets that were prepared earlier. Reading is measured on fewer rows, because
they must exist. Each way is timed in CPU seconds and in wall-clock seconds, because the machine may be busy.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, disable_progress_bars
from datasets.arrow_writer import ArrowWriter

from vividmed.data.image_grids import COLUMN, with_grids
from vividmed.data.preparation.encoding import encode_image
from vividmed.data.sampling.lengths import measure_lengths
from vividmed.data.schema import prepared_schema
from vividmed.processing.image_processing_vividmed import VividMedImageProcessor
from vividmed.processing.medical_image import MedicalImage
from vividmed.processing.processing_vividmed import VividMedProcessor
from vividmed.processing.tokenizer import load_tiny_tokenizer

TARGET_SECONDS = 60
TARGET_ROWS = 1_000_000
_WORDS = [
    "the",
    "lungs",
    "are",
    "clear",
    "without",
    "focal",
    "consolidation",
    "effusion",
    "or",
    "pneumothorax",
    "heart",
    "size",
    "is",
    "normal",
    "mediastinal",
    "contours",
    "unremarkable",
    "no",
    "acute",
    "osseous",
    "abnormality",
    "mild",
    "degenerative",
    "changes",
    "of",
    "thoracic",
    "spine",
    "stable",
    "compared",
    "with",
    "prior",
]
_TEXT = " ".join(np.random.default_rng(0).choice(_WORDS, 2000))
_BATCH = 1000


def make_row(number: int, generator: np.random.Generator, *, images: bool) -> dict[str, Any]:
    """A row of a grounded report.

    Args:
        number: number of the row.
        generator: source of randomness.
        images: store the image; its grid is stored in any case.
    """
    is_volume = number % 3 == 0
    size = (int(generator.integers(24, 72)) if is_volume else 1, *generator.integers(96, 160, 2).tolist())
    first, last = generator.integers(len(_TEXT) // 2), generator.integers(300, 900)
    report = f"{_TEXT[first : first + last].strip()} {number}"
    grid = {
        "size": list(size),
        "spacing": [2.5, 0.75, 0.75] if is_volume else [1.0, 1.0, 1.0],
        "directions": "SRA" if is_volume else None,
    }
    row: dict[str, Any] = {
        "id": f"start:{number}",
        "patient": str(number),
        "images": [],
        "volumes": [],
        "modality": "CT" if is_volume else "X-ray",
        "report": report,
        "phrases": [],
        "masks": [],
        "boxes": [],
        "incomplete": [],
        "source": "made up",
        "licence": "none",
        COLUMN: [grid],
    }
    if images:
        affine = np.diag([0.75, 0.75, 2.5, 1.0])
        array = generator.integers(0, 255, (1, *size), dtype=np.uint8)
        image = MedicalImage(array, affine, oriented=is_volume)
        row["volumes" if is_volume else "images"] = [encode_image(array, image, str(number))]
        row = with_grids(row)
    return row


def write_rows(path: Path, count: int, *, images: bool) -> Dataset:
    """Write rows to a file that is mapped into memory, as ``load_dataset`` does."""
    generator = np.random.default_rng(0)
    features: Features = prepared_schema("grounded_report")
    with ArrowWriter(path=str(path), features=features) as writer:
        for rows in _batches(count, generator, images=images):
            writer.write_table(pa.Table.from_pylist(rows, schema=features.arrow_schema))
        writer.finalize()
    return Dataset.from_file(str(path))


def _batches(count: int, generator: np.random.Generator, *, images: bool) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, count, _BATCH):
        numbers = range(start, min(start + _BATCH, count))
        yield [make_row(number, generator, images=images) for number in numbers]


def measure(name: str, rows: Dataset, processor: VividMedProcessor, workers: int) -> tuple[float, list[int]]:
    """Time the lengths of all rows, and print the result.

    Returns:
        Seconds per row, CPU seconds if there is one worker; and the lengths.
    """
    started, started_cpu = time.perf_counter(), time.process_time()
    lengths = measure_lengths(rows, processor, num_workers=workers)
    seconds, cpu = time.perf_counter() - started, time.process_time() - started_cpu
    of_workers = f", {cpu:.1f} CPU s" if workers == 1 else f" on {workers} workers"
    print(
        f"{name:<9}{len(rows):>9} rows in {seconds:7.1f} s{of_workers}: {len(rows) / seconds:>9,.0f} rows/s, "
        f"{TARGET_ROWS / len(rows) * seconds:7.1f} s per million"
    )
    return (cpu if workers == 1 else seconds) / len(rows), lengths


def main() -> int:
    """Compare, print; the exit status is 1 if the two ways differ."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rows", type=int, default=TARGET_ROWS, help="rows with stored grids (default: a million)"
    )
    parser.add_argument(
        "--read-rows", type=int, default=2000, help="rows whose images are read (default: 2000)"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes (default: 1)")
    options = parser.parse_args()
    disable_progress_bars()
    processor = VividMedProcessor(VividMedImageProcessor(), load_tiny_tokenizer())
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        few = write_rows(folder / "few.arrow", options.read_rows, images=True)
        many = write_rows(folder / "many.arrow", options.rows, images=False)
        per_row, _ = measure("grids", many, processor, options.workers)
        of_read, read = measure("headers", few.remove_columns(COLUMN), processor, options.workers)
        _, stated = measure("grids", few, processor, options.workers)
    unit = "CPU s" if options.workers == 1 else "s"
    print(
        f"a million rows: {TARGET_ROWS * per_row:.1f} {unit} (target <= {TARGET_SECONDS}); from headers "
        f"{TARGET_ROWS * of_read:.1f} {unit}, and every image is read from the disk; {of_read / per_row:.1f} times as long"
    )
    print(f"both ways give {'the same' if read == stated else 'DIFFERENT'} lengths")
    return int(read != stated)


if __name__ == "__main__":
    raise SystemExit(main())
