"""The table of all data sets that can be prepared."""

from pathlib import Path

from vividmed.data.adapters import Adapter, adapter_names, get_adapter
from vividmed.data.preparation.integrity import count_files

_COLUMNS = ("name", "kind", "modality", "targets", "access", "shareable", "licence", "GB", "ready")
_LONGEST = 40


def catalogue(origins: Path | None = None) -> str:
    """Format all data sets as a table for a terminal.

    Args:
        origins: folder that contains the original data sets, each in a folder of its name. The column ``ready`` is
            ``yes`` if one is complete, ``part`` if files are missing, ``no`` if there is none, and ``-`` without this
            argument.
    """
    lines = [_COLUMNS, *(_line(get_adapter(name), origins) for name in adapter_names())]
    widths = [max(len(line[i]) for line in lines) for i in range(len(_COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _line(adapter: Adapter, origins: Path | None) -> tuple[str, ...]:
    return (
        adapter.name,
        adapter.row_kind.replace("_", " "),
        _short(", ".join(adapter.modalities)),
        str(len(adapter.targets)) if adapter.targets else "text",
        adapter.access,
        {"yes": "yes", "no": "no", "derived_gated": "gated"}[adapter.redistribute],
        _short(adapter.licence),
        f"{adapter.gigabytes:g}",
        "-" if origins is None else _ready(adapter, origins / adapter.name),
    )


def _ready(adapter: Adapter, origin: Path) -> str:
    if not origin.is_dir():
        return "no"
    complete = all(count_files(origin, pattern) >= (n or 1) for pattern, n in adapter.layout.items())
    return "yes" if complete else "part"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
