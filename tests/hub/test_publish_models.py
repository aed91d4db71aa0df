"""Publishing models to a live Hub on loopback: provenance decides who may see them."""

import pytest

from tests.fixtures.hub.client import ClientError
from tests.fixtures.hub.folders import CREDENTIALED, OPEN, make_model
from tests.fixtures.hub.pushes import refusal


def test_model_without_known_training_data_is_private_only(hub, publisher, tmp_path):
    folder = make_model(tmp_path / "model")
    assert publisher("publish_model", folder=folder, repo_id="tester/plain")["visibility"] == "private"
    for audience in ("public", "gated"):
        message = refusal(
            publisher, "publish_model", folder=folder, repo_id="tester/plain", **{audience: True}
        )
        assert "provenance.json: is missing" in message


def test_only_weights_configuration_card_and_provenance_leave(hub, publisher, nobody, tmp_path):
    folder = make_model(tmp_path / "model", OPEN)
    published = publisher("publish_model", folder=folder, repo_id="tester/open-model", public=True)
    assert published["visibility"] == "public"
    assert sorted(hub.files("model", "tester/open-model")) == [
        ".gitattributes",
        "README.md",
        "config.json",
        "model.safetensors",
        "provenance.json",
    ]
    size = (folder / "model.safetensors").stat().st_size
    assert nobody("download", repo_id="tester/open-model", path="model.safetensors") == size


def test_one_credentialed_data_set_makes_a_model_private_or_gated(hub, publisher, stranger, tmp_path):
    folder = make_model(tmp_path / "model", OPEN, CREDENTIALED)
    arguments = {"folder": folder, "repo_id": "tester/signed-model"}
    message = refusal(publisher, "publish_model", **arguments, public=True)
    assert str(CREDENTIALED) in message
    assert OPEN.name not in message
    assert message.endswith("keep it private, or make it gated")
    assert hub.requests == []
    assert publisher("publish_model", **arguments)["visibility"] == "private"
    assert publisher("publish_model", **arguments, gated=True)["visibility"] == "gated"
    with pytest.raises(ClientError) as caught:
        stranger("download", repo_id="tester/signed-model", path="model.safetensors")
    assert caught.value.kind == "GatedRepoError"


def test_gate_of_an_existing_public_model_is_closed_before_the_weights_arrive(hub, publisher, tmp_path):
    publisher(
        "publish_model", folder=make_model(tmp_path / "open", OPEN), repo_id="tester/closing", public=True
    )
    hub.requests.clear()
    folder = make_model(tmp_path / "signed", CREDENTIALED)
    assert "exists and is public" in refusal(
        publisher, "publish_model", folder=folder, repo_id="tester/closing"
    )
    publisher("publish_model", folder=folder, repo_id="tester/closing", gated=True)
    settings = hub.requests.index("PUT /api/models/tester/closing/settings")
    assert settings < hub.requests.index("POST /api/models/tester/closing/commit/main")


def test_pickled_weights_are_not_published(hub, publisher, tmp_path):
    folder = make_model(tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    message = refusal(publisher, "publish_model", folder=folder, repo_id="tester/pickle")
    assert "contains no safetensors file" in message
