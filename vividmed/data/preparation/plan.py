"""Cases divided into shards, and the plan kept with the output."""

import json
import logging
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

logger = logging.getLogger(__name__)

_VERSION = 3
"""Raised when the same input gives other rows than before."""


@dataclass(frozen=True)
class PlannedCase:
    """A case, its split, and a digest of all that decides on its rows but the content of its files."""

    case: Case
    split: Split
    digest: str


@dataclass(frozen=True)
class Shard:
    """Consecutive cases of a split that become one file."""

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
        cases: By split, then by id.
        left_out: Case to the reason why the adapter leaves it out on purpose.
        failed: Case to the reason why it cannot even be listed.
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
        adapter: Of the data set.
        origin: Its folder.
        processing: Choices of the user.
        only: Leave out the other splits.
        limit: Take the first cases by id.

    Raises:
        VividMedError: The origin is not what the adapter expects.
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
    # The split of a patient rests on all of its cases, also on those that a limit leaves out.
    splits = assign_splits(
        ((adapter.patient_key(case), case.split) for case in found), fill=adapter.has_own_patients(found)
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


def divide(cases: Sequence[PlannedCase], source_bytes_a_shard: float) -> list[Shard]:
    """Divide cases into shards whose source files have about the given size; a shard holds one split."""
    shards: list[Shard] = []
    for split in SPLITS:
        group: list[PlannedCase] = []
        total, number = 0, 0
        for item in (item for item in cases if item.split == split):
            group.append(item)
            total += source_bytes(item.case)
            if total >= source_bytes_a_shard:
                shards.append(Shard(split, number, tuple(group)))
                group, total, number = [], 0, number + 1
        if group:
            shards.append(Shard(split, number, tuple(group)))
    return shards


_NAME = "plan.json"


def save_plan(folder: Path, shards: Sequence[Shard]) -> None:
    """Write which cases belong to which shard."""
    plan = [
        {"split": shard.split, "number": shard.number, "cases": [item.case.id for item in shard.cases]}
        for shard in shards
    ]
    write_atomically(folder / _NAME, json.dumps(plan, indent=1) + "\n")


def load_plan(folder: Path, cases: Sequence[PlannedCase]) -> list[Shard] | None:
    """The kept division of these cases, None if there is none or it is one of other cases.

    Raises:
        VividMedError: The file is damaged.
    """
    path = folder / _NAME
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise VividMedError(f"{path}: is damaged ({error}); delete it and run again") from error
    planned = [(shard["split"], key) for shard in plan for key in shard["cases"]]
    if planned != [(item.split, item.case.id) for item in cases]:
        return None
    by_id = {item.case.id: item for item in cases}
    return [
        Shard(shard["split"], shard["number"], tuple(by_id[key] for key in shard["cases"])) for shard in plan
    ]
