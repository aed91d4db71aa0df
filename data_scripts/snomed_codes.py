"""Look up the SNOMED CT codes of the taxonomy's targets.

    python data_scripts/snomed_codes.py totalsegmentator_snomed_mapping.csv

Codes come from pydicom's dictionary of concepts, by equality of names and synonyms, and otherwise from the table that
TotalSegmentator publishes (``resources/totalsegmentator_snomed_mapping.csv`` of its package). Nothing is written from
memory. The result is vividmed/data/snomed.json.
"""

import csv
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pydicom.sr._concepts_dict import concepts

from vividmed.data.taxonomy import Target, Taxonomy
from vividmed.files import write_atomically

OUTPUT = Path(__file__).parents[1] / "vividmed" / "data" / "snomed.json"
_TYPE = "SegmentedPropertyTypeCodeSequence"
_SIDES = ("left", "right")
_TOO_WIDE = ("main bronchus",)
"""Targets of which a synonym names a wider concept."""


def known_concepts() -> dict[str, tuple[str, str]]:
    """Code and meaning by lower-case meaning; names that stand for several codes are left out."""
    found: dict[str, set[tuple[str, str]]] = {}
    for codes in concepts["SCT"].values():
        for code, (meaning, *_) in codes.items():  # type: ignore[attr-defined]
            found.setdefault(meaning.lower(), set()).add((code, meaning))
    return {name: next(iter(options)) for name, options in found.items() if len(options) == 1}


def code_of(target: Target, known: dict[str, tuple[str, str]]) -> dict[str, str] | None:
    """The concept that a target's name or a synonym is equal to, with its side taken off if necessary."""
    for term in target.terms:
        if match := known.get(term.lower()):
            return {"value": match[0], "meaning": match[1]}
    if target.laterality != "place":
        return None
    side = next((side for side in _SIDES if target.name.startswith(f"{side} ")), None)
    if side is None:
        return None
    for term in target.terms:
        if match := known.get(term.lower().removeprefix(f"{side} ")):
            return {"value": match[0], "meaning": match[1], "side": side}
    return None


def main(mapping: Path) -> None:
    """Write the table."""
    with mapping.open(encoding="utf-8") as stream:
        published = {row["Structure"]: row for row in csv.DictReader(stream)}
    known = known_concepts()
    table = {}
    for target in Taxonomy.load():
        entry = code_of(target, known)
        row = published.get(target.ts_v2_key or "")
        if entry is None and row is not None:
            entry = {"value": row[f"{_TYPE}.CodeValue"], "meaning": row[f"{_TYPE}.CodeMeaning"]}
            side = row["SegmentedPropertyTypeModifierCodeSequence.CodeMeaning"].lower()
            entry |= {"side": side} if side in _SIDES else {}
            entry["origin"] = "TotalSegmentator"
        if entry is not None and target.name not in _TOO_WIDE:
            table[target.name] = entry
    write_atomically(OUTPUT, json.dumps(table, indent=1, ensure_ascii=False) + "\n")
    print(f"{OUTPUT.name}: {len(table)} of {len(Taxonomy.load())} targets have a code")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
