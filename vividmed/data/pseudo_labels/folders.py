"""Checks that a step gets the folder of the right step before it, and that it overwrites nothing of others."""

from pathlib import Path

from vividmed.data.pseudo_labels.sources import STEP_FILE, STUDIES, Source, read_note
from vividmed.errors import VividMedError

ROWS_NOTES = ".rows"
"""Folder in which the step ``rows`` keeps its notes."""

_NEEDED = {"filter": "tag", "localize": "filter", "review": "tag", "rows": "localize"}
_DATA_SET = ("*.parquet", "data", "README.md", "dataset_dict.json", "dataset_info.json")


def check_history(step: str, place: str, source: Source) -> None:
    """Refuse a source that has not been through the step that a step builds upon.

    Args:
        step: name of the step.
        place: what the user gave as ``--input``.
        source: the opened source.

    Raises:
        VividMedError: the earlier step is missing.
    """
    done = [str(note["step"]) for note in source.history]
    needed = _NEEDED.get(step)
    if needed is not None and needed not in done:
        found = f"the last step was {done[-1]}" if done else "it is not the folder of a step"
        raise VividMedError(
            f"--input {place}: {step} needs the folder of {needed} or a later step, but {found}"
        )


def check_output(step: str, place: str, output: Path) -> None:
    """Refuse a folder that contains something else than an earlier run of the same step.

    Args:
        step: name of the step.
        place: what the user gave as ``--input``.
        output: folder to write to.

    Raises:
        VividMedError: the folder is the input, or of another step, or a data set that this command has not written.
    """
    if not output.is_dir():
        return
    remedy = "choose another --output"
    if output.resolve() == Path(place).resolve():
        raise VividMedError(f"--output {output}: is the --input; {remedy}")
    if (output / STEP_FILE).is_file() and (found := read_note(output)["step"]) != step:
        raise VividMedError(f"--output {output}: contains the step {found}; {remedy}")
    own = output / (ROWS_NOTES if step == "rows" else STUDIES)
    if not own.is_dir() and any(next(output.glob(pattern), None) for pattern in _DATA_SET):
        raise VividMedError(f"--output {output}: contains a data set that {step} has not written; {remedy}")
