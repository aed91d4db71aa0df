"""Figures of what sizes and spacings the images of a data set have."""

import io
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np


def draw_histograms(rows: Iterable[Mapping[str, Any]]) -> bytes | None:
    """PNG with one row of histograms of sizes and one of spacings, along z, y and x.

    Args:
        rows: Facts from :func:`~vividmed.data.row_statistics.describe_row`.

    Returns:
        The same bytes for the same rows; None without rows.
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
