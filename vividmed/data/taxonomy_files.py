"""Taxonomy files of one's own: read, merged into the package's entries, and kept with data sets and models."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from vividmed.data.laterality import has_side
from vividmed.errors import VividMedError
from vividmed.files import write_atomically

TAXONOMY_VARIABLE = "VIVIDMED_TAXONOMY"
"""Environment variable that names files of further targets, separated like the folders of ``PATH``."""

TAXONOMY_FILE = "taxonomy.json"
"""File in which a prepared data set or a model keeps the targets that are not the package's."""

_LISTS = ("synonyms", "parents")
_LARGEST = 10_000_000
_FORM = "give a list of targets, or a mapping with the key 'targets'"


def own_taxonomy_files() -> tuple[Path, ...]:
    """Files that this process adds to the package's targets."""
    return tuple(Path(name) for name in os.environ.get(TAXONOMY_VARIABLE, "").split(os.pathsep) if name)


def save_taxonomy(folder: Path) -> None:
    """Write the targets that are not the package's to a folder; without any, nothing is written."""
    entries = [entry for path in own_taxonomy_files() for entry in read_taxonomy_file(path)]
    if entries:
        unique = list({json.dumps(entry, sort_keys=True): entry for entry in entries}.values())
        write_atomically(folder / TAXONOMY_FILE, json.dumps(unique, indent=1, ensure_ascii=False) + "\n")


def read_taxonomy_file(path: Path) -> list[dict[str, Any]]:
    """Entries of a YAML or JSON file.

    The file contains a list of entries, or such a list under ``targets``, or a mapping of names to entries there. With
    ``sides: true`` an entry stands for three targets: itself, and its left and right one, which are kinds of it.

    Raises:
        VividMedError: the file cannot be read, or has another form.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise VividMedError(f"{path}: is larger than any taxonomy; {_FORM}")
        text = path.read_text(encoding="utf-8-sig")
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:300]
        raise VividMedError(f"{path}: cannot be read as a taxonomy ({reason}); correct it") from error
    if isinstance(content, Mapping) and set(content) == {"targets"}:
        content = content["targets"]
        if isinstance(content, Mapping):
            content = [
                {"name": name, **(entry or {})} if isinstance(entry or {}, Mapping) else entry
                for name, entry in content.items()
            ]
    if not isinstance(content, list):
        raise VividMedError(f"{path}: contains a {type(content).__name__}; {_FORM}")
    return [entry for given in content for entry in _with_sides(given, path)]


def merged_entries(
    entries: Iterable[Mapping[str, Any]], own: Iterable[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """Entries with those of one's own: one whose name exists adds synonyms and parents to it, others are new.

    Raises:
        VividMedError: an entry states something else about an existing target.
    """
    merged: dict[str, dict[str, Any]] = {_key(entry["name"]): dict(entry) for entry in entries}
    for entry in own:
        key = (
            _key(entry["name"]) if isinstance(entry, Mapping) and isinstance(entry.get("name"), str) else None
        )
        if key is None or key not in merged:
            merged[key or f"\0{len(merged)}"] = dict(entry) if isinstance(entry, Mapping) else entry
            continue
        target = merged[key]
        for field, value in entry.items():
            if field in _LISTS and isinstance(value, list):
                target[field] = list(dict.fromkeys([*target.get(field, ()), *value]))
            elif field != "name" and value != target.get(field, value):
                raise VividMedError(
                    f"taxonomy: {entry['name']!r} is known with {field} {target[field]!r}, not {value!r}; leave the field out"
                )
    return list(merged.values())


def _with_sides(entry: Any, path: Path) -> list[Any]:
    if not isinstance(entry, Mapping) or "sides" not in entry:
        return [entry]
    plain = {field: value for field, value in entry.items() if field != "sides"}
    name = plain.get("name")
    if not isinstance(entry["sides"], bool) or not isinstance(name, str) or has_side(name):
        raise VividMedError(
            f"{path}: entry {name!r}: 'sides' is true or false, and for names without left or right"
        )
    if not entry["sides"]:
        return [plain]
    sided = [
        {
            "name": f"{side} {name}",
            "category": plain.get("category"),
            "synonyms": [f"{side} {synonym}" for synonym in plain.get("synonyms") or ()],
            "parents": [name],
        }
        for side in ("left", "right")
    ]
    return [plain, *sided]


def _key(term: str) -> str:
    return " ".join(term.casefold().split())
