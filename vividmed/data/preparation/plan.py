"""Divides cases into shards, and keeps the plan with the output."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vividmed.data.adapters.base import Adapter
from vividmed.data.preparation.case_rows import Processing
from vividmed.data.preparation.fingerprint import digest, source_bytes
from vividmed.data.raw.case import SPLITS, Case, Failed, Skipped, Split, printable
from vividmed.data.raw.splits import assign_splits
from vividmed.errors import VividMedError
from vividmed.files import write_atomically

_VERSION = 4
"""Increased whenever the same input gives other rows than before."""

_PLAN_FILE = "plan.json"


@dataclass(frozen=True)
class PlannedCase:
    """A case, its split, and a digest of everything that decides on its rows except the content of its files."""

    case: Case
    split: Split
    digest: str


@dataclass(frozen=True)
class Shard:
    """Consecutive cases of one split that become one file."""

    split: Split
    number: int
    cases: tuple[PlannedCase, ...]

    @property
    def name(self) -> str:
        return f"{self.split}-{self.number:05d}"


@dataclass(frozen=True)
class Listing:
    """The cases of an origin.

    Attributes:
        cases: cases by split, then by id.
        left_out: id of each case that the adapter leaves out on purpose, and the reason.
        failed: id of each case that cannot even be planned, and the reason.
    """

    cases: tuple[PlannedCase, ...]
    left_out: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def list_cases(
    adapter: Adapter,
    origin: Path,
    processing: Processing,
    *,
    only: Split | None = None,
    limit: int | None = None,
) -> Listing:
    """List the cases of an origin and decide on their splits.

    Args:
        adapter: adapter of the data set.
        origin: its folder.
        processing: choices about the images.
        only: list only this split.
        limit: list only the first cases by id.

    Raises:
        VividMedError: the origin is not what the adapter expects.
    """
    found: list[Case] = []
    left_out, failed = {}, {}
    for number, item in enumerate(adapter.cases(origin), 1):
        if isinstance(item, Skipped):
            left_out[item.id] = item.reason
        elif isinstance(item, Failed):
            failed[item.id] = item.reason
        elif problem := item.problem():
            failed[printable(item.id) or f"(case {number})"] = problem
        else:
            found.append(item)
    # A patient's split depends on all of its cases, including those that a limit leaves out.
    splits = assign_splits(
        ((adapter.patient_key(case), case.split) for case in found),
        fill=adapter.has_own_patients(found),
        ratios=adapter.split_ratios,
    )
    repeated = {key: count for key, count in Counter(case.id for case in found).items() if count > 1}
    failed |= {
        key: f"{count} cases of the origin have this id; ids must be unique"
        for key, count in repeated.items()
    }
    usable = sorted((case for case in found if case.id not in repeated), key=lambda case: case.id)
    settings = (_VERSION, processing, adapter.name, adapter.title, adapter.licence, adapter.row_kind)
    planned = []
    for case in usable[:limit]:
        split = splits[adapter.patient_key(case)]
        if only in (None, split):
            planned.append(PlannedCase(case, split, digest((settings, split, case), origin)))
    planned.sort(key=lambda item: (SPLITS.index(item.split), item.case.id))
    return Listing(tuple(planned), left_out, failed)


def divide(cases: Sequence[PlannedCase], source_bytes_per_shard: float) -> list[Shard]:
    """Divide cases into shards whose source files have about the given size; each shard has one split."""
    shards: list[Shard] = []
    for split in SPLITS:
        group: list[PlannedCase] = []
        total, number = 0, 0
        for item in (item for item in cases if item.split == split):
            group.append(item)
            total += source_bytes(item.case)
            if total >= source_bytes_per_shard:
                shards.append(Shard(split, number, tuple(group)))
                group, total, number = [], 0, number + 1
        if group:
            shards.append(Shard(split, number, tuple(group)))
    return shards


def save_plan(folder: Path, shards: Sequence[Shard]) -> None:
    """Write the cases of each shard."""
    plan = [
        {"split": shard.split, "number": shard.number, "cases": [item.case.id for item in shard.cases]}
        for shard in shards
    ]
    write_atomically(folder / _PLAN_FILE, json.dumps(plan, indent=1) + "\n")


def load_plan(folder: Path, cases: Sequence[PlannedCase]) -> list[Shard] | None:
    """Read the saved plan of these cases; None if there is none, or if it is one of other cases.

    Raises:
        VividMedError: the file is damaged.
    """
    path = folder / _PLAN_FILE
    try:
        plan = [
            (entry["split"], int(entry["number"]), list(entry["cases"]))
            for entry in json.loads(path.read_text(encoding="utf-8"))
        ]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise VividMedError(f"{path}: is damaged ({error}); delete it and run again") from error
    planned = [(split, key) for split, _, keys in plan for key in keys]
    if planned != [(item.split, item.case.id) for item in cases]:
        return None
    by_id = {item.case.id: item for item in cases}
    return [Shard(split, number, tuple(by_id[key] for key in keys)) for split, number, keys in plan]
