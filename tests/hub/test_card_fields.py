"""Cards of medical models: what they have to say, and what the validator finds missing."""

import pytest
from huggingface_hub import ModelCard

from tests.fixtures.hub.card_rules import card_errors
from tests.fixtures.hub.cards import make_terms
from vividmed.files import packaged_folder
from vividmed.hub.card_fields import FIELDS, missing_fields
from vividmed.hub.cards import RunFacts, SourceCount, render_model_card

CARDS = packaged_folder("model_cards")


def facts(**changes):
    stated = {
        "name": "run",
        "stage": "vlm",
        "base_model": "lab/base",
        "adapter": True,
        "method": "all weights",
        "sources": [SourceCount("Chest Set", "CC BY 4.0", 3)],
        "eval_sources": [],
        "steps": 5,
        "global_batch_size": 2,
        "provenance": [make_terms()],
        "modalities": {"CT": 2, "X-ray": 1},
        "eval_dataset": "chest | set",
        "eval_split": "test",
        "figures": {"evaluation loss": 1.25, "accuracy of modality questions": float("nan")},
    }
    return RunFacts(**(stated | changes))


@pytest.mark.parametrize("name", ["vlm", "grounding", "segmenter"])
def test_cards_of_runs_say_everything_but_the_licence(name):
    text = render_model_card(CARDS / f"{name}.md.jinja", facts())
    assert missing_fields(text) == ["licence, in the metadata"]
    assert "| chest-set | CC BY 4.0 | open | yes | https://example.org/chest |" in text
    assert "CT 2, X-ray 1" in text
    assert "Doe et al. A chest set. 2020." in text
    assert card_errors(text) == []


def test_measured_figures_are_metadata_with_data_set_and_split():
    (result,) = ModelCard(render_model_card(CARDS / "vlm.md.jinja", facts())).data.eval_results
    assert (result.dataset_name, result.dataset_split) == ("chest | set", "test")
    assert (result.metric_name, result.metric_value) == ("evaluation loss", 1.25)
    none = ModelCard(render_model_card(CARDS / "vlm.md.jinja", facts(figures={}))).data
    assert none.eval_results is None


@pytest.mark.parametrize("path", sorted((CARDS / "released").glob("*.md")), ids=lambda path: path.name)
def test_cards_of_released_weights_are_complete_and_acceptable(path):
    text = path.read_text(encoding="utf-8")
    assert missing_fields(text) == []
    assert card_errors(text) == []


def test_there_is_a_card_for_every_released_weight():
    names = {path.stem for path in (CARDS / "released").glob("*.md")}
    assert names == {"base_17b", "stage_1", "stage_2", "stage_3", "segmenters"}


FULL = (CARDS / "released" / "base_17b.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_a_field_that_is_taken_away_is_named(field):
    if field.heading is None:
        text = FULL.replace("Not a medical device", "A demonstration").replace(
            "not a medical device", "a demonstration"
        )
    else:
        import re

        text = re.sub(rf"(?im)^(#+ .*(?:{field.heading}).*)$", "## Something else", FULL)
    assert field.name in missing_fields(text)


@pytest.mark.parametrize("body", ["", "TBD", "- none", "More information needed"])
def test_a_heading_without_content_does_not_count(body):
    text = f"# Model\n\nNot a medical device.\n\n## Risks\n\n{body}\n\n## Contact\n\nA. Person\n"
    missing = missing_fields(text)
    assert "risks" in missing
    assert "contact" not in missing


def test_an_empty_card_lacks_everything():
    assert missing_fields("") == [*(field.name for field in FIELDS), "licence, in the metadata"]
