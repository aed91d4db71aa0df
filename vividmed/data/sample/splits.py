"""Decides by rule which patients are held out, so that the test split asks for generalisation and not for extrapolation.

Patients are grouped by what a model has to have seen to be asked: the modality, for an MRI its
sequence, and the part of the body. A group of
one patient trains. In every other group some patients train and some are held out.
"""

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Protocol

HELD_OUT_SHARE = 1 / 3
"""Share of a group's patients that is held out, as closely as the structures allow."""


class Patient(Protocol):
    """What decides the split of a patient.

    Attributes:
        name: key of the patient; the series of one patient have one name and count once.
        modality: modality of the acquired image, also for radiographs that are projected from a CT.
        technique: sequence of an MRI, on which the brightness of every tissue depends.
        body_part: part of the body that the images show.
        structures: what is labelled in the images.
    """

    @property
    def name(self) -> str: ...
    @property
    def modality(self) -> str: ...
    @property
    def technique(self) -> str: ...
    @property
    def body_part(self) -> str: ...
    @property
    def structures(self) -> frozenset[str]: ...


def held_out_patients(patients: Iterable[Patient]) -> frozenset[str]:
    """Choose the patients of the test split.

    Of all ways to divide a group of two or more patients, the one is taken by which the most structures are labelled
    in both splits; among these, the one whose share of held-out patients is nearest to :data:`HELD_OUT_SHARE`; then
    the one that labels the most structures in the training split; then the one that holds out the last names.

    Args:
        patients: all patients of the sample, in any order.

    Returns:
        Their names.
    """
    groups: dict[tuple[str, str, str], dict[str, frozenset[str]]] = {}
    for patient in patients:
        group = groups.setdefault((patient.modality, patient.technique, patient.body_part), {})
        group[patient.name] = group.get(patient.name, frozenset()) | patient.structures
    return frozenset(name for group in groups.values() for name in _held_out(group))


def _held_out(structures: dict[str, frozenset[str]]) -> Sequence[str]:
    """Names of a group that are held out, given the structures of each patient."""
    names = sorted(structures)

    def value(held_out: tuple[str, ...]) -> tuple[int, float, int, tuple[str, ...]]:
        tested = frozenset[str]().union(*(structures[name] for name in held_out))
        trained = frozenset[str]().union(*(structures[name] for name in names if name not in held_out))
        excess = abs(len(held_out) - HELD_OUT_SHARE * len(names))
        return len(tested & trained), -excess, len(trained), held_out

    ways = [way for number in range(1, len(names)) for way in combinations(names, number)]
    return max(ways, key=value, default=())
