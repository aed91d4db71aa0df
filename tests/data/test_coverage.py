"""The data sets that adapters cover, and the terms they state."""

import pytest

from vividmed.data.adapters import adapter_names, get_adapter
from vividmed.data.preparation.catalogue import catalogue

DECATHLON = [
    "task02-heart",
    "task03-liver",
    "task04-hippocampus",
    "task05-prostate",
    "task06-lung",
    "task07-pancreas",
    "task08-hepaticvessel",
    "task09-spleen",
    "task10-colon",
]
LOCALIZATION = [
    *["acdc", "amos22", "atlas", "atm22", "autopet-iii"],
    *(f"brats2023-{name}" for name in ("gli", "men", "met", "ped", "ssa")),
    *[
        "btcv-abdomen",
        "btcv-cervix",
        "busi",
        "chaos",
        "ct-org",
        "ctpelvic1k",
        "ctspine1k",
        "han-seg",
        "isles22",
        "lidc-idri",
        "lnq2023",
        "lits",
    ],
    *["mrspineseg"],
    *(f"msd-{name}" for name in DECATHLON),
    *[
        "parse2022",
        "pengwin-t1",
        "pengwin-t2",
        "pi-cai",
        "prostate158",
        "ribfrac",
        "seg-a-2023",
        "segrap2023",
        "segthor",
    ],
    *["totalsegmentator", "verse", "vindr-cxr", "word", "chexpert"],
]
"""The 46 sets of the published system, CheXpert with only image labels."""
VISION_LANGUAGE = [
    "mimic-cxr",
    "ct-rate",
    "openi",
    "rocov2",
    "radiopaedia",
    "pmc-oa",
    "slake",
    "vqa-rad",
    "vqa-med-2019",
    "m3d-cap",
    "m3d-vqa",
]
GROUNDED = [
    "mimic-cxr-grounded",
    "ct-rate-grounded",
    "padchest-gr",
    "rexgroundingct",
    "radgenome-chestct",
    "ms-cxr",
]
BOXES_OF_LANGUAGE_SETS = ["chest-imagenome", "slake-regions"]


def test_the_table_of_data_sets_has_no_gap():
    wanted = [*LOCALIZATION, *VISION_LANGUAGE, *GROUNDED, *BOXES_OF_LANGUAGE_SETS]
    assert len(LOCALIZATION) == 46
    assert sorted(wanted) == adapter_names()
    table = catalogue()
    print(table)  # seen with `pytest -s`
    assert [line.split()[0] for line in table.splitlines()[1:]] == sorted(wanted)
    kinds = {name: get_adapter(name).row_kind for name in wanted}
    assert {kinds[name] for name in GROUNDED} == {"grounded_report"}
    assert {kinds[name] for name in VISION_LANGUAGE} == {"vision_language"}
    assert {name for name in LOCALIZATION if kinds[name] != "localization"} == {"chexpert"}


@pytest.mark.parametrize("name", adapter_names())
def test_what_is_not_confirmed_is_not_shared(name: str):
    adapter = get_adapter(name)
    if "not confirmed" in adapter.licence:
        assert adapter.redistribute == "no"
    if adapter.redistribute != "yes":
        assert adapter.terms
