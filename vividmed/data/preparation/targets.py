"""Target names of an original data set that are not in the taxonomy, found before any image is read."""

from collections import Counter
from collections.abc import Iterable, Mapping

from vividmed.data.raw.case import Case
from vividmed.data.schema import plain_target
from vividmed.data.taxonomy import Taxonomy
from vividmed.errors import VividMedError

_SHOWN = 5


def case_targets(case: Case) -> set[str]:
    """All target names that a case mentions, without the numbers of :func:`~vividmed.data.schema.numbered`."""
    names = {target for annotation in case.annotations for target in annotation.targets}
    names |= {target for target, _ in case.boxes}
    names |= {*case.absent, *case.incomplete}
    names |= {target for phrase in case.phrases for target in phrase}
    return {plain_target(name) for name in names}


def unknown_targets(cases: Iterable[Case]) -> dict[str, int]:
    """Names that are not in the taxonomy, and the number of cases that mention each; the most frequent first."""
    taxonomy = Taxonomy.load()
    counts = Counter(name for case in cases for name in case_targets(case) if name not in taxonomy)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def describe_unknown_targets(unknown: Mapping[str, int]) -> str:
    """The unknown names, each with the nearest names of the taxonomy, and the remedy, in one line."""
    taxonomy = Taxonomy.load()
    described = []
    for name, count in list(unknown.items())[:_SHOWN]:
        nearest = taxonomy.nearest(name)
        hint = f"; nearest: {', '.join(map(repr, nearest))}" if nearest else ""
        described.append(f"{name!r} ({count} case{'s' * (count != 1)}{hint})")
    more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
    return (
        f"targets that are not in the taxonomy: {', '.join(described)}{more}; correct the names, map "
        "labels to targets of the taxonomy, or add targets of your own by a file (--taxonomy)"
    )


def check_targets(name: str, cases: Iterable[Case]) -> None:
    """Refuse a data set with targets that are not in the taxonomy.

    Args:
        name: name of the data set.
        cases: its cases.

    Raises:
        VividMedError: there are such targets; the message names them.
    """
    if unknown := unknown_targets(cases):
        raise VividMedError(f"{name}: {describe_unknown_targets(unknown)}")
