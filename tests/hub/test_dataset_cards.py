"""Cards of data sets: metadata that the Hub and ``datasets`` read, counts, terms and notice."""

import pytest
from huggingface_hub import DatasetCard

from tests.fixtures.hub.cards import make_facts, make_terms
from vividmed.errors import VividMedError
from vividmed.hub.dataset_cards import REDISTRIBUTION_NOTICE, hub_licence, render_dataset_card


def test_metadata_names_licence_tasks_modalities_size_and_files():
    data = DatasetCard(render_dataset_card(make_facts())).data
    assert data.license == "cc-by-4.0"
    assert data.pretty_name == "Chest | Set"
    assert data.task_categories == ["image-segmentation", "object-detection"]
    assert {"medical", "ct", "x-ray", "access-open"} <= set(data.tags)
    assert data.size_categories == "1K<n<10K"
    assert data.configs == [
        {
            "config_name": "default",
            "data_files": [
                {"split": "train", "path": "data/train-*.parquet"},
                {"split": "test", "path": "data/test-*.parquet"},
            ],
        }
    ]


def test_counts_are_tables_by_split_with_the_frequent_first_and_missing_splits_as_zero():
    lines = render_dataset_card(make_facts()).splitlines()
    assert [lines[lines.index("| train | 900 |") + k] for k in (0, 1)] == [
        "| train | 900 |",
        "| test | 200 |",
    ]
    start = lines.index("| target | train | test |")
    assert lines[start + 1 : start + 6] == [
        "|---|---|---|",
        "| liver | 800 | 150 |",
        "| left lung | 10 | 0 |",
        "| a\\|b | 0 | 1 |",
        "",
    ]
    assert "| X-ray | 50 | 0 |" in lines
    assert "![Sizes in voxels](figures/sizes.png)" in lines


def test_card_gives_source_citation_and_how_it_was_made():
    card = render_dataset_card(make_facts())
    for text in (
        "https://example.org/chest",
        "Doe et al. A chest set. 2020.",
        "intensities to 8 bits",
        "half-open",
    ):
        assert text in card


@pytest.mark.parametrize("redistribute", ["no", "derived_gated"])
def test_data_that_may_not_be_passed_on_says_so_before_anything_else(redistribute):
    terms = make_terms(access="credentialed", redistribute=redistribute, terms="Sign the agreement.")
    card = render_dataset_card(make_facts(terms))
    assert card.index(REDISTRIBUTION_NOTICE) < card.index("## Rows")
    assert "credentialed readers" in card
    assert "| terms | Sign the agreement. |" in card
    assert REDISTRIBUTION_NOTICE not in render_dataset_card(make_facts())


def test_licence_unknown_to_the_hub_keeps_its_name_and_a_link():
    data = DatasetCard(
        render_dataset_card(make_facts(make_terms(licence="PhysioNet Credentialed 1.5.0")))
    ).data
    assert data.license == "other"
    assert data.to_dict()["license_name"] == "physionet-credentialed-1.5.0"
    assert data.to_dict()["license_link"] == "https://example.org/chest"


@pytest.mark.parametrize(
    ("licence", "identifier"),
    [
        ("CC BY-NC-SA 4.0", "cc-by-nc-sa-4.0"),
        ("CC0 1.0", "cc0-1.0"),
        ("Apache-2.0", "apache-2.0"),
        ("MIT", "mit"),
        ("BIMCV research terms", "other"),
    ],
)
def test_licences_map_to_the_identifiers_of_the_hub(licence, identifier):
    assert hub_licence(licence) == identifier


def test_parts_without_content_are_left_out():
    card = render_dataset_card(make_facts(row_kind="vision_language", target_rows={}, histograms={}))
    assert "By target" not in card
    assert "## Sizes" not in card
    assert "half-open" not in card
    assert "\n\n\n" not in card


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": {}}, "'rows' names no split"),
        ({"modality_rows": {"CT": {"dev": 3}}}, r"modality_rows\['CT'\] has the split 'dev'"),
        ({"data_files": {"default": {"dev": "d.parquet"}}}, r"data_files\['default'\] has the split 'dev'"),
    ],
)
def test_counts_of_unknown_splits_are_refused(changes, message):
    with pytest.raises(VividMedError, match=message):
        render_dataset_card(make_facts(**changes))
