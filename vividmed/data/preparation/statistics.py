"""Statistics of prepared rows."""

import io
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import nibabel as nib
import numpy as np
from PIL import Image

from vividmed.data.schema import plain_target
from vividmed.processing.nifti import is_nifti


def describe_row(row_kind: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """Statistics of one row, as plain JSON.

    Args:
        row_kind: kind of the row.
        row: row with encoded images.

    Returns:
        ``patient``, ``modality``, ``sizes`` (D, H, W) and ``spacings`` in mm (z, y, x; None if unknown) of its images,
        ``present`` and ``absent`` targets, number of ``masks`` and ``boxes``, and number of ``words`` of text.
    """
    shapes = [_measure(cell["bytes"]) for cell in [*row["images"], *row["volumes"]]]
    facts: dict[str, Any] = {
        "patient": row["patient"],
        "modality": row["modality"],
        "sizes": [size for size, _ in shapes],
        "spacings": [spacing for _, spacing in shapes],
        "present": [],
        "absent": [],
        "masks": len(row.get("masks", ())),
        "boxes": len(row.get("boxes", ())),
        "words": 0,
    }
    if row_kind == "localization":
        facts["present"], facts["absent"] = list(row["targets"]), list(row["absent"])
    elif row_kind == "grounded_report":
        named = [plain_target(target) for phrase in row["phrases"] for target in phrase["targets"]]
        facts["present"] = list(dict.fromkeys(named))
        facts["words"] = len(row["report"].split())
    else:
        answers = [turn["content"] for turn in row["messages"] if turn["role"] == "assistant"]
        facts["words"] = sum(len(answer.split()) for answer in answers)
    return facts


def count_targets(rows: Iterable[Mapping[str, Any]]) -> list[tuple[str, int, int]]:
    """Each target with the number of rows where it is present and where it is absent; the most frequent first."""
    present: Counter[str] = Counter()
    absent: Counter[str] = Counter()
    for facts in rows:
        present.update(facts["present"])
        absent.update(facts["absent"])
    names = sorted(present.keys() | absent.keys(), key=lambda name: (-present[name], -absent[name], name))
    return [(name, present[name], absent[name]) for name in names]


def _measure(content: bytes) -> tuple[list[int], list[float] | None]:
    """Size (D, H, W) and spacing (z, y, x) of an encoded image."""
    if not is_nifti(content):
        with Image.open(io.BytesIO(content)) as picture:
            dpi = picture.info.get("dpi")
            spacing = [1.0, *(round(25.4 / float(d), 4) for d in dpi[::-1])] if dpi and all(dpi) else None
            return [1, picture.height, picture.width], spacing
    header = nib.Nifti1Header.from_fileobj(io.BytesIO(content[:348]))
    spacing = [round(float(np.float64(value)), 4) for value in header.get_zooms()[:3]][::-1]
    return [int(n) for n in header.get_data_shape()[:3]][::-1], spacing


def draw_histograms(rows: Iterable[Mapping[str, Any]]) -> bytes | None:
    """Draw histograms of sizes and of spacings along z, y and x, as PNG.

    Args:
        rows: statistics from :func:`describe_row`.

    Returns:
        The same bytes for the same rows; None if there are no rows.
    """
    from matplotlib.figure import Figure

    rows = list(rows)
    sizes = np.array([size for facts in rows for size in facts["sizes"]])
    known = [spacing for facts in rows for spacing in facts["spacings"] if spacing is not None]
    if not sizes.size:
        return None
    panels = [(sizes, "voxels")] + ([(np.array(known), "mm")] if known else [])
    figure = Figure(figsize=(9, 2.4 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), 3, squeeze=False)
    for line, (values, unit) in zip(axes, panels, strict=True):
        for index, (axis, name) in enumerate(zip(line, "zyx", strict=True)):
            axis.hist(values[:, index], bins=24, color="#4477aa")
            axis.set_xlabel(f"{'size' if unit == 'voxels' else 'spacing'} along {name} ({unit})")
            axis.yaxis.get_major_locator().set_params(integer=True)
            axis.spines[["top", "right"]].set_visible(False)
        line[0].set_ylabel("images")
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=100, metadata={"Software": None})
    return stream.getvalue()
