"""Small tables that are used without preparing them first: they are prepared into a cache, keyed by their content."""

import hashlib
from functools import cache
from pathlib import Path

from filelock import FileLock
from huggingface_hub.constants import HF_HOME

from vividmed.data.own.tabular import is_table
from vividmed.errors import VividMedError
from vividmed.files import write_atomically

MOST_ROWS = 20_000
_SHOWN = 3
_README = """---
configs:
- config_name: default
  data_files:
{files}
---
"""


def prepared_location(name: str) -> str:
    """Where the rows of a data set lie, prepared: for a table the folder in the cache, else the name itself.

    Raises:
        VividMedError: a table cannot be used.
    """
    return str(prepared_table(Path(name))) if is_table(name) and not Path(name).is_dir() else name


def prepared_table(path: Path) -> Path:
    """Folder of the prepared rows of a table, whose images lie in the table's folder.

    Nothing is done if neither the table nor an image has changed. Several processes may ask at once.

    Raises:
        VividMedError: the table cannot be used, is large, or has a row that cannot be used.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise VividMedError(f"{path}: cannot be read ({error.strerror or error}); check the path") from error
    return _prepared(path.absolute(), hashlib.sha256(content).hexdigest())


@cache
def _prepared(path: Path, digest: str) -> Path:
    # Most runs train on prepared rows and need neither the readers of tables nor the preparation.
    from vividmed.data.own.listing import OwnData, check_name, default_name
    from vividmed.data.own.prepare import prepare_own
    from vividmed.data.own.table import read_table_listing

    listing = read_table_listing(path)
    if len(listing.cases) > MOST_ROWS:
        raise VividMedError(
            f"{path}: has more than {MOST_ROWS} rows, which take long; prepare it once: vividmed prepare table"
        )
    name = check_name(None, default_name(path.name.partition(".")[0]))
    key = hashlib.sha256(f"{digest}\0{path}".encode()).hexdigest()[:16]
    folder = Path(HF_HOME) / "vividmed" / "tables" / f"{name}-{key}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    # The other processes of a run wait, and find the work done.
    with FileLock(folder.with_suffix(".lock")):
        data = OwnData(listing, name=name, command="vividmed prepare table")
        result = prepare_own(data, folder)
        if result.refused:
            rows = "; ".join(map(str, result.refused[:_SHOWN]))
            more = f"; and {len(result.refused) - _SHOWN} more" if len(result.refused) > _SHOWN else ""
            raise VividMedError(
                f"{path}: {len(result.refused)} rows cannot be used ({rows}{more}); correct them, or use "
                "`vividmed prepare table`, which leaves them out"
            )
        files = "\n".join(
            f"  - split: {split}\n    path: data/{split}-*.parquet" for split in result.prepared.rows
        )
        write_atomically(folder / "README.md", _README.format(files=files))
    return folder
