"""The division of cases into shards, kept with the output so that it stays when files change."""

import json
from collections.abc import Sequence
from pathlib import Path

from vividmed.data.case_store import write_atomically
from vividmed.data.plan import PlannedCase, Shard
from vividmed.errors import VividMedError

_NAME = "plan.json"


def save_plan(folder: Path, shards: Sequence[Shard]) -> None:
    """Write which cases belong to which shard."""
    plan = [
        {"split": shard.split, "number": shard.number, "cases": [item.case.id for item in shard.cases]}
        for shard in shards
    ]
    write_atomically(folder / _NAME, (json.dumps(plan, indent=1) + "\n").encode())


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
