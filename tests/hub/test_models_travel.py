"""Full model, adapter and merged model, pushed to a live Hub on loopback and loaded from there by another process."""

import json

import pytest
import torch

from tests.fixtures.hub.client import ClientError
from tests.fixtures.hub.folders import OPEN
from tests.fixtures.training import make_row, small_model, small_processor
from vividmed.data.terms import write_provenance
from vividmed.errors import VividMedError
from vividmed.hub.card_fields import missing_fields
from vividmed.hub.publish import find_repo_type
from vividmed.training.loading import load_model
from vividmed.training.settings.model_arguments import ModelArguments

PROCESSOR = small_processor()
QUESTION = "What is the modality of this image?"


def save(model, folder):
    model.save_pretrained(folder)
    PROCESSOR.save_pretrained(folder)
    write_provenance(folder, [OPEN])
    (folder / "README.md").write_text("---\nlicense: mit\n---\n\n# Model\n\nNot a medical device.\n")
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of a base model, of an adapter on it and of a batch; and the answers of both."""
    root = tmp_path_factory.mktemp("models")
    base = save(small_model(PROCESSOR), root / "base")
    inputs = dict(PROCESSOR(images=make_row(0)["images"], text=QUESTION))
    inputs.pop("geometry")
    torch.save(inputs, root / "batch.pt")
    args = ModelArguments(
        str(base), use_peft=True, lora_r=2, adapter_groups=["all"], train_boundary_tokens=True
    )
    adapted = load_model(args, PROCESSOR, base_folder=base, seed=0).eval()
    answers = {}
    with torch.no_grad():
        answers["base"] = small_model(PROCESSOR).eval()(**inputs).logits[0, -1].tolist()
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter += 0.02 * torch.randn_like(parameter)
        answers["adapter"] = adapted(**inputs).logits[0, -1].tolist()
    save(adapted, root / "adapter")
    return root, answers


def push(client, *arguments):
    result = client("command", arguments=list(map(str, arguments)))
    assert result["status"] == 0, result["errors"]
    return result["output"]


def test_models_travel_through_a_private_hub_and_answer_as_before(hub, publisher, stranger, nobody, models):
    root, expected = models
    refused = publisher("command", arguments=[str(root / "adapter"), "tester/travel-adapter"])
    assert refused["status"] == 2
    assert "which is not a model on the Hub" in refused["errors"]

    hub.failures_left = 3
    output = push(publisher, root / "base", "tester/travel-base")
    assert "tester/travel-base is private" in output
    assert "the card does not give: intended use" in output
    push(publisher, root / "adapter", "tester/travel-adapter")
    config = json.loads(hub.read("model", "tester/travel-adapter", "adapter_config.json"))
    assert config["base_model_name_or_path"] == "tester/travel-base"
    publisher("merge", adapter="tester/travel-adapter", folder=str(root / "merged"))
    card = (root / "merged" / "README.md").read_text()
    assert "base_model: tester/travel-base" in card
    assert missing_fields(card) == ["licence, in the metadata"]
    push(publisher, root / "merged", "tester/travel-merged")

    batch = str(root / "batch.pt")
    for repo_id, roads, name in (
        ("tester/travel-base", ["class"], "base"),
        ("tester/travel-adapter", ["class", "auto", "peft", "load_adapter"], "adapter"),
        ("tester/travel-merged", ["auto"], "adapter"),
    ):
        for road in roads:
            found = publisher("answers", repo_id=repo_id, batch=batch, road=road, base="tester/travel-base")
            assert found == pytest.approx(expected[name], abs=1e-5), (repo_id, road)
    ids = PROCESSOR(text=QUESTION)["input_ids"][0].tolist()
    assert publisher("question_ids", repo_id="tester/travel-merged", text=QUESTION) == ids
    for client in (stranger, nobody):
        with pytest.raises(ClientError):
            client("answers", repo_id="tester/travel-adapter", batch=batch, road="class")


def test_upload_of_a_model_resumes_after_the_connection_dropped(live, hub, publisher, tmp_path):
    model = small_model(PROCESSOR)
    # The Hub has not seen these weights yet.
    model.model.norm.weight.data += 1
    folder = save(model, tmp_path / "model")
    hub.dies_after_uploads = 1
    refused = publisher("command", arguments=[str(folder), "tester/dropped"])
    assert refused["status"] == 2
    assert "run the same command again" in refused["errors"]
    live.stop()
    live.start()
    push(publisher, folder, "tester/dropped")
    assert len(hub.uploads) == 1
    weights = (folder / "model.safetensors").read_bytes()
    assert hub.read("model", "tester/dropped", "model.safetensors") == weights


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (["config.json", "model.safetensors"], "model"),
        (["adapter_config.json"], "model"),
        (["data/train.parquet", "terms.json"], "dataset"),
        (["train.parquet"], "dataset"),
        (["README.md"], None),
        (["config.json", "data/train.parquet"], None),
    ],
)
def test_what_a_folder_contains_is_found_by_its_files(tmp_path, files, found):
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("{}")
    if found is None:
        with pytest.raises(VividMedError, match=r"contains (both|neither)"):
            find_repo_type(tmp_path)
    else:
        assert find_repo_type(tmp_path) == found
