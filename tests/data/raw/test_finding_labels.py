import pytest

from vividmed.data.raw.finding_labels import (
    CHEXPERT_TARGETS,
    CT_RATE_TARGETS,
    NO_FINDING,
    FindingLabels,
    parse_chexpert,
    parse_ct_rate,
)
from vividmed.data.taxonomy import Taxonomy
from vividmed.errors import VividMedError

WHERE = "labels.csv, line 7"


def chexpert(**values: object) -> dict[str, object]:
    blank = dict.fromkeys([*CHEXPERT_TARGETS, NO_FINDING], "")
    return blank | {key.replace("_", " "): value for key, value in values.items()}


def ct_rate(*present: str) -> dict[str, object]:
    return {column: int(column in present) for column in CT_RATE_TARGETS}


def all_names(labels: FindingLabels) -> list[str]:
    return sorted([*labels.present, *labels.absent, *labels.uncertain, *labels.unmentioned])


def test_uncertain_and_unmentioned_are_neither_present_nor_absent():
    labels = parse_chexpert(
        chexpert(Pneumothorax="0.0", Edema="-1.0", Fracture=1.0, Cardiomegaly=float("nan")), where=WHERE
    )
    assert labels.present == ("fracture",)
    assert labels.absent == ("pneumothorax",)
    assert labels.uncertain == ("pulmonary edema",)
    assert "cardiomegaly" in labels.unmentioned
    assert all_names(labels) == sorted(CHEXPERT_TARGETS.values())


def test_no_finding_makes_blank_findings_absent_but_says_nothing_of_devices():
    labels = parse_chexpert(chexpert(No_Finding="1.0"), where=WHERE)
    assert labels.present == labels.uncertain == ()
    assert labels.unmentioned == ("support device",)
    assert len(labels.absent) == len(CHEXPERT_TARGETS) - 1


def test_what_a_present_finding_implies_is_never_absent():
    labels = parse_chexpert(chexpert(Consolidation=1, Lung_Opacity=0), where=WHERE)
    assert labels.present == ("pulmonary consolidation",)
    assert "pulmonary opacification" in labels.unmentioned
    labels = parse_ct_rate(ct_rate("Coronary artery wall calcification"), where=WHERE)
    assert labels.present == ("coronary artery calcification",)
    assert "arterial calcification" in labels.unmentioned


def test_ct_rate_zero_is_absent():
    labels = parse_ct_rate(ct_rate("Emphysema", "Lung nodule"), where=WHERE)
    assert set(labels.present) == {"pulmonary emphysema", "lung nodule"}
    assert len(labels.absent) == len(CT_RATE_TARGETS) - 2


def test_targets_are_canonical_names_and_distinct():
    for table in (CHEXPERT_TARGETS, CT_RATE_TARGETS):
        assert Taxonomy.load().canonical(table.values()) == list(table.values())


@pytest.mark.parametrize("value", ["2", "yes", 0.5])
def test_other_values_are_refused_with_row_and_column(value):
    with pytest.raises(VividMedError, match=r"labels.csv, line 7: column 'Edema' contains"):
        parse_chexpert(chexpert(Edema=value), where=WHERE)
    with pytest.raises(VividMedError, match=r"labels.csv, line 7: column 'Emphysema' contains .*; use"):
        parse_ct_rate(ct_rate() | {"Emphysema": value}, where=WHERE)


def test_blank_is_refused_where_the_file_knows_none():
    with pytest.raises(VividMedError, match="column 'Emphysema' contains ''; use 0 or 1"):
        parse_ct_rate(ct_rate() | {"Emphysema": ""}, where=WHERE)


def test_missing_column_is_named():
    row = chexpert()
    del row["Edema"]
    with pytest.raises(VividMedError, match="column 'Edema' is missing"):
        parse_chexpert(row, where=WHERE)
