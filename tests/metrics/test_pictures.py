"""What a person looks at after scoring: plots, a page of cases, and the section of a model card."""

import json

import pytest
from huggingface_hub import ModelCard
from PIL import Image

from tests.metrics.test_scoring import answers, grounded, write
from vividmed.cli.main import main
from vividmed.errors import VividMedError
from vividmed.hub.card_evaluation import add_evaluation
from vividmed.metrics.reporting.gallery import case_scores, write_gallery
from vividmed.metrics.reporting.plots import draw_plots

CARD = "---\nlibrary_name: transformers\ntags:\n- medical\n---\n\n# A model\n\nText.\n\n## Use\n\nCode.\n"


def test_masks_and_boxes_have_plots_and_texts_have_none(tmp_path):
    drawn = draw_plots(grounded(), tmp_path)
    assert [path.name for path in drawn] == ["dice_by_target.png", "precision_recall.png", "reliability.png"]
    for path in drawn:
        with Image.open(path) as picture:
            assert min(picture.size) > 200
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 10
    assert draw_plots(answers(), tmp_path) == []


def test_cases_are_ordered_and_shown_with_their_images(tmp_path):
    predictions = grounded()
    rows = [
        {"id": each.id, "images": [Image.new("L", (16, 16), 100)], "volumes": []} for each in predictions[1:]
    ]
    page = write_gallery(predictions, tmp_path, rows).read_text()
    scores = case_scores(predictions)[1]
    # Dice of the liver grows with the number of the scan; the box is always found.
    assert scores == sorted(scores)
    assert page.index("scan-3") < page.index("<h2>Worst")
    assert "The image was not found" in page.split("<h2>Worst")[1]
    assert page.count("data:image/jpeg;base64,") >= 6


def test_texts_of_cases_cannot_change_the_page(tmp_path):
    predictions = answers(4)
    predictions[0].prediction = "<script>alert(1)</script>"
    predictions[0].failure = "a < b"
    page = write_gallery(predictions, tmp_path, ()).read_text()
    assert "<script>" not in page
    assert "a &lt; b" in page


def test_scores_stand_on_the_card_once_and_in_its_metadata(tmp_path, capsys):
    model, folder = tmp_path / "model", tmp_path / "predictions"
    model.mkdir()
    (model / "README.md").write_text(CARD)
    write(folder, answers())
    protocol = {"name": "published", "description": "As published.", "quirks": {"unit": "images count"}}
    run = {"task": "vqa", "dataset": "/home/me/data/own", "split": "test", "protocol": protocol}
    (folder / "run.json").write_text(json.dumps(run))
    for _ in range(2):
        assert (
            main(["evaluate", "score", str(folder), "--samples", "20", "--card", str(model), "--plots"]) == 0
        )
    assert (folder / "gallery.html").is_file()
    printed = capsys.readouterr().out
    assert "- unit: images count" in printed
    text = (model / "README.md").read_text()
    assert text.count("## Evaluation of task vqa") == 1
    assert text.index("## Evaluation of task vqa") < text.index("## Use")
    assert "/home/me" not in text
    card = ModelCard.load(model / "README.md")
    assert card.data.tags == ["medical"]
    results = {each.metric_type: each for each in card.data.eval_results}
    assert results["accuracy"].metric_value == 0.5
    assert results["accuracy"].dataset_name == "own"


@pytest.mark.parametrize(
    ("content", "message"), [(None, "has no README.md"), ("---\na: [\n---\n", "model card")]
)
def test_a_card_that_cannot_be_used_is_one_line(content, message, tmp_path):
    if content is not None:
        (tmp_path / "README.md").write_text(content)
    with pytest.raises(VividMedError, match=message):
        add_evaluation(tmp_path, "## x", {"a": 1.0}, task="vqa", dataset="d", split="test")


def test_an_evaluation_of_another_data_set_stands_beside_the_first(tmp_path):
    (tmp_path / "README.md").write_text(CARD)
    for dataset in ("one", "two", "one"):
        add_evaluation(tmp_path, f"## {dataset}", {"a": 1.0}, task="vqa", dataset=dataset, split="test")
    card = ModelCard.load(tmp_path / "README.md")
    assert sorted(each.dataset_name for each in card.data.eval_results) == ["one", "two"]
    assert (card.text.count("## one"), card.text.count("## two")) == (1, 1)
