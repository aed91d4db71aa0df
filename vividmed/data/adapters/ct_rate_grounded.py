"""CT-RATE with grounded reports as the published system makes them: tagged phrases and masks of the model SAT.

The origin contains ``train.json`` and ``test.json`` with tagged reports, and the exported volumes as
``image/<study>/<volume>.nii.gz``, or in another folder below ``image``. Next to each volume lie ``<volume>_seg.json``, the
names of the masks, and ``<volume>_seg.pt.zst``, a compressed tensor of them.
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

from vividmed.data.adapters.base import (
    Case,
    DrawnMasks,
    ImageFile,
    Listed,
    Skipped,
    Split,
    each_case,
    files,
    register,
)
from vividmed.data.adapters.ct_rate import CTRATE
from vividmed.data.adapters.ct_rate_family import (
    CTRATEAdapter,
    held_out_patients,
    patient_of,
    split_of,
    volume_name,
)
from vividmed.data.raw.documents import is_file, read_json, read_records
from vividmed.data.raw.report_text import clean_text, parse_report
from vividmed.data.taxonomy import Taxonomy
from vividmed.errors import VividMedError
from vividmed.processing.grounded_text import format_grounded_text
from vividmed.processing.medical_image import MedicalImage

_PARTS = ("train.json", "test.json")


@register
class CTRATEGrounded(CTRATEAdapter):
    """A row for each reconstruction that has masks; phrases without a mask stay marked but have no label.

    Tags and masks name some structures differently; both are translated to names of the taxonomy.
    """

    name = "ct-rate-grounded"
    title = "CT-RATE (grounded reports)"
    row_kind = "grounded_report"
    homepage = CTRATE.homepage
    citation = CTRATE.citation
    layout = dict.fromkeys(_PARTS, 1) | {"image/**/*_seg.json": None, "image/**/*_seg.pt.zst": None}
    gigabytes = 2500.0

    def cases(self, origin: Path) -> Iterator[Listed]:
        make = partial(
            _case,
            volumes={volume_name(path.name): path for path in files(origin, "image/**/*.nii.gz")},
            held_out=held_out_patients(origin),
        )
        for name in _PARTS:
            for record in read_records(origin / name, "image", "ref_report", "tags"):
                images = record["image"] if isinstance(record["image"], list) else [record["image"]]
                yield from each_case(((_volume(image), (_volume(image), record)) for image in images), make)


def _volume(image: Any) -> str:
    """Records name converted files; the name before the first dot is that of the volume."""
    return PurePosixPath(str(image)).name.partition(".")[0]


def _case(
    item: tuple[str, dict[str, Any]], *, volumes: dict[str, Path], held_out: dict[str, Split]
) -> Case | Skipped:
    volume, record = item
    if volume not in volumes:
        return Skipped(volume, "it was not exported")
    written = parse_report(record["ref_report"])
    if written is not None and not clean_text(written.findings):
        return Skipped(volume, "its report has no findings")
    path = volumes[volume]
    names = path.with_name(f"{volume}_seg.json")
    channels = _channels(read_json(names)) if is_file(names) else {}
    stored = path.with_name(f"{volume}_seg.pt.zst")
    tags = sorted(record["tags"], key=lambda tag: tag["start"])
    targets = [_target(tag["target"]) for tag in tags]
    wanted = {target: channels[target] for target in targets if target in channels}
    masks = DrawnMasks(tuple(wanted), partial(_draw, stored, tuple(wanted.items())), (stored,))
    return Case(
        id=volume,
        patient=patient_of(volume),
        split=split_of(patient_of(volume), held_out),
        images=(ImageFile(path=path, modality="CT", plane="axial"),),
        annotations=(masks,) if wanted else (),
        report=format_grounded_text(record["ref_report"], [(tag["start"], tag["end"]) for tag in tags]),
        phrases=tuple((target,) if target in wanted else () for target in targets),
    )


def _target(tag: str) -> str:
    """The taxonomy's name of a tag; tags are free text of a language model and may not be in the taxonomy."""
    taxonomy = Taxonomy.load()
    return taxonomy[tag].name if tag in taxonomy else tag


def _channels(names: list[str]) -> dict[str, int]:
    """Target to its index in the stored masks."""
    of_sat = {target.sat_name: target.name for target in Taxonomy.load() if target.sat_name}
    return {of_sat.get(name, _target(name)): number for number, name in enumerate(names)}


def _draw(
    path: Path, channels: tuple[tuple[str, int], ...], image: MedicalImage
) -> Iterable[tuple[str, np.ndarray]]:
    """The stored masks have the axis order of the NIfTI file, (n, x, y, z)."""
    masks = _load(path)
    for target, channel in channels:
        if masks.ndim != 4 or channel >= len(masks):
            raise VividMedError(
                f"{path}: the shape {masks.shape} leaves no mask {channel} for {target!r}; run the segmentation again"
            )
        yield target, masks[channel].T


def _load(path: Path) -> np.ndarray:
    with contextlib.suppress(ImportError):
        import monai.data  # noqa: F401 - declares its tensor type, in which masks were saved, as safe to load
    try:
        with pa.input_stream(str(path), compression="zstd") as stream:
            masks = torch.load(io.BytesIO(stream.read()), map_location="cpu", weights_only=True)
        return torch.as_tensor(masks).numpy()
    except FileNotFoundError as error:
        raise VividMedError(f"{path}: no such file; run the segmentation of this volume again") from error
    except (OSError, EOFError, RuntimeError, TypeError, ValueError, pickle.UnpicklingError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise VividMedError(
            f"{path}: does not contain readable masks ({reason}); install monai or copy the file again"
        ) from error
