"""Which patients are held out follows from facts about all of them."""

from dataclasses import dataclass, field, replace
from itertools import permutations

import pytest

from vividmed.data.sample.sources import NONCOMMERCIAL_VOLUMES, PICTURES, VOLUMES
from vividmed.data.sample.splits import held_out_patients


@dataclass(frozen=True)
class Patient:
    name: str
    modality: str = "CT"
    body_part: str = "chest"
    structures: frozenset[str] = field(default=frozenset())
    technique: str = ""


def patient(name: str, *structures: str, modality: str = "CT", body_part: str = "chest") -> Patient:
    return Patient(name, modality, body_part, frozenset(structures))


@pytest.mark.parametrize(
    ("patients", "held_out"),
    [
        pytest.param([patient("a")], set(), id="one patient trains"),
        pytest.param([patient("a"), patient("b", modality="MRI")], set(), id="modalities are apart"),
        pytest.param([patient("a"), patient("b", body_part="head")], set(), id="parts of the body are apart"),
        pytest.param([patient("a"), replace(patient("b"), technique="T2")], set(), id="sequences are apart"),
        pytest.param([patient("a"), patient("b")], {"b"}, id="of two equal patients the last"),
        pytest.param([patient("b", "liver"), patient("a")], {"a"}, id="labels train"),
        pytest.param([patient("a"), patient("a")], set(), id="series of one patient are one patient"),
        pytest.param([patient(name) for name in "abcdef"], {"e", "f"}, id="a third"),
        pytest.param(
            [
                patient("a", "heart", "liver"),
                patient("b", "heart"),
                patient("c", "lesion"),
                patient("d", "lesion"),
            ],
            {"b", "d"},
            id="every structure in both splits",
        ),
    ],
)
def test_groups_of_several_patients_are_divided(patients, held_out):
    for order in permutations(patients[:4]):
        assert held_out_patients([*order, *patients[4:]]) == held_out


@pytest.mark.parametrize("volumes", [VOLUMES, (*VOLUMES, *NONCOMMERCIAL_VOLUMES)])
def test_every_held_out_patient_of_the_sample_has_a_sister_in_training(volumes):
    patients = [*volumes, *PICTURES]
    held_out = held_out_patients(patients)
    groups: dict[tuple[str, ...], list[str]] = {}
    for one in patients:
        groups.setdefault((one.modality, one.technique, one.body_part), []).append(one.name)
    for names in groups.values():
        assert len(set(names)) == len(names)
        assert 0 <= len(held_out & set(names)) < len(names)
        assert bool(held_out & set(names)) == (len(names) > 1)
    assert {one.modality for one in patients if one.name in held_out} == {"CT", "MRI", "ultrasound"}
