"""CT-RATE with grounded reports as the published system makes them: tagged phrases and masks of the model SAT.

The origin holds ``train.json`` and ``test.json`` with tagged reports, and the exported volumes as
``image/<study>/<volume>.nii.gz``, or in another folder below ``image``, with ``<volume>_seg.json``, the names of the
masks, and ``<volume>_seg.pt.zst``, a compressed tensor of them, beside each.
"""

import contextlib
import io
import pickle
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from vividmed.data.adapters.base import Adapter, Case, DrawnMasks, ImageFile, Skipped, Split, files, register
from vividmed.data.adapters.ct_rate import CTRATE, LICENCE, TERMS, held_out_patients, patient_of, split_of
from vividmed.data.raw.documents import read_json, read_records
from vividmed.data.taxonomy import Taxonomy
from vividmed.errors import VividMedError
from vividmed.processing.grounded_text import format_grounded_text
from vividmed.processing.medical_image import MedicalImage

_PARTS = ("train.json", "test.json")


@register
class CTRATEGrounded(Adapter):
    """A row for each reconstruction that has masks; phrases without a mask stay marked and have no label.

    Tags and masks meet in the taxonomy: they name some structures differently.
    """

    name = "ct-rate-grounded"
    title = "CT-RATE (grounded reports)"
    row_kind = "grounded_report"
    modalities = ("CT",)
    licence = LICENCE
    access = "registered"
    redistribute = "derived_gated"
    terms = TERMS
    homepage = CTRATE.homepage
    citation = CTRATE.citation
    layout = dict.fromkeys(_PARTS, 1) | {"image/**/*_seg.json": None, "image/**/*_seg.pt.zst": None}
    gigabytes = 2500.0
    patients = "ct-rate"
    published_split = True
    exclude_minimum = True
    max_depth = 128
    max_in_plane = 256

    def cases(self, origin: Path) -> Iterator[Case | Skipped]:
        held_out = held_out_patients(origin)
        volumes = {path.name.removesuffix(".nii.gz"): path for path in files(origin, "image/**/*.nii.gz")}
        for name in _PARTS:
            for record in read_records(origin / name, "image", "ref_report", "tags"):
                for image in record["image"]:
                    # Records name converted files; the name before the first dot is that of the volume.
                    volume = PurePosixPath(image).name.partition(".")[0]
                    if volume not in volumes:
                        yield Skipped(volume, "it was not exported")
                        continue
                    try:
                        split = split_of(patient_of(volume), held_out)
                        yield _case(volume, volumes[volume], split, record)
                    except (AttributeError, KeyError, TypeError, VividMedError) as error:
                        yield Skipped(volume, f"its tags or masks are not in the published form ({error})")


def _case(volume: str, path: Path, split: Split, record: dict[str, Any]) -> Case:
    names = path.with_name(f"{volume}_seg.json")
    channels = _channels(read_json(names)) if names.is_file() else {}
    stored = path.with_name(f"{volume}_seg.pt.zst")
    tags = sorted(record["tags"], key=lambda tag: tag["start"])
    targets = [_target(tag["target"]) for tag in tags]
    wanted = {target: channels[target] for target in targets if target in channels}
    masks = DrawnMasks(tuple(wanted), partial(_draw, stored, tuple(wanted.items())), (stored,))
    return Case(
        id=volume,
        patient=patient_of(volume),
        split=split,
        images=(ImageFile(path=path, modality="CT", plane="axial"),),
        annotations=(masks,) if wanted else (),
        report=format_grounded_text(record["ref_report"], [(tag["start"], tag["end"]) for tag in tags]),
        phrases=tuple((target,) if target in wanted else () for target in targets),
    )


def _target(tag: str) -> str:
    """The taxonomy's name; tags are free text of a language model and may be none of it."""
    taxonomy = Taxonomy.load()
    return taxonomy[tag].name if tag in taxonomy else tag


def _channels(names: list[str]) -> dict[str, int]:
    """Target to its place in the stored masks."""
    of_sat = {target.sat_name: target.name for target in Taxonomy.load() if target.sat_name}
    return {of_sat.get(name, _target(name)): number for number, name in enumerate(names)}


def _draw(
    path: Path, channels: tuple[tuple[str, int], ...], image: MedicalImage
) -> Iterable[tuple[str, np.ndarray]]:
    """Masks in the axis order of the NIfTI file, (n, x, y, z)."""
    masks = _load(path)
    for target, channel in channels:
        if masks.ndim != 4 or channel >= len(masks):
            raise VividMedError(
                f"{path}: has the shape {masks.shape} and so no mask {channel} for {target!r}"
            )
        yield target, masks[channel].T


def _load(path: Path) -> np.ndarray:
    with contextlib.suppress(ImportError):
        import monai.data  # noqa: F401 - makes its tensor type, in which masks were saved, safe to load
    try:
        with pa.input_stream(str(path), compression="zstd") as stream:
            masks = torch.load(io.BytesIO(stream.read()), map_location="cpu", weights_only=True)
        return torch.as_tensor(masks).numpy()
    except FileNotFoundError as error:
        raise VividMedError(f"{path}: no such file; run the segmentation of this volume again") from error
    except (OSError, EOFError, RuntimeError, TypeError, ValueError, pickle.UnpicklingError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise VividMedError(
            f"{path}: holds no readable masks ({reason}); install monai or copy it again"
        ) from error
