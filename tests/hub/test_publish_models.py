"""Publishing models to a live Hub on loopback: provenance decides who may see them."""

import json

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


def make_adapter(folder, base):
    make_model(folder, OPEN)
    (folder / "config.json").unlink()
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": base})
    )
    return folder


def published_base(hub, repo_id):
    return json.loads(hub.read("model", repo_id, "adapter_config.json"))["base_model_name_or_path"]


@pytest.mark.parametrize("base", ["../out/a", "{folder}", "outputs/vg", None])
def test_adapter_whose_base_is_not_on_the_hub_is_refused_with_the_remedy(hub, publisher, tmp_path, base):
    folder = make_adapter(tmp_path / "adapter", base and base.format(folder=tmp_path))
    message = refusal(publisher, "publish_model", folder=folder, repo_id="tester/lost")
    assert "publish that model and give its id (--base-model-id), or merge the adapter" in message
    assert ("model", "tester/lost") not in hub.repos


def test_adapter_is_published_with_the_id_of_its_base_and_the_line_that_loads_both(hub, publisher, tmp_path):
    base = make_model(tmp_path / "base", OPEN)
    publisher("publish_model", folder=base, repo_id="tester/base")
    adapter = make_adapter(tmp_path / "adapter", str(base))
    published = publisher("publish_model", folder=adapter, repo_id="tester/adapter")
    assert published_base(hub, "tester/adapter") == "tester/base"
    assert published["loading_line"] == (
        'load_adapter(VividMedForCausalLM.from_pretrained("tester/base"), "tester/adapter", '
        f'revision="{published["revision"]}")'
    )
    assert json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"] == str(base)
    given = make_adapter(tmp_path / "given", "../out/a")
    publisher("publish_model", folder=given, repo_id="tester/given", base_model_id="lab/base")
    assert published_base(hub, "tester/given") == "lab/base"
    trained_on_the_hub = make_adapter(tmp_path / "hub", "tester/base")
    publisher("publish_model", folder=trained_on_the_hub, repo_id="tester/third")
    assert published_base(hub, "tester/third") == "tester/base"


@pytest.mark.parametrize(
    ("model_type", "line"),
    [
        ("vividmed", "VividMedForCausalLM.from_pretrained("),
        ("vividmed_segmenter", "Segmenter.from_pretrained("),
        ("vividmed_instance_segmenter", "InstanceSegmenter.from_pretrained("),
    ],
)
def test_loading_line_names_the_class_of_the_model(hub, publisher, tmp_path, model_type, line):
    folder = make_model(tmp_path / "model", OPEN)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    published = publisher("publish_model", folder=folder, repo_id=f"tester/{model_type}")
    assert published["loading_line"] == f'{line}"tester/{model_type}", revision="{published["revision"]}")'


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("base_model: ../out/a", "'base_model' is '../out/a', not the id of a model on the Hub"),
        ("base_model: [lab/base, /home/a]", "'base_model' is '/home/a'"),
        ("base_model: 3", "'base_model' is 3"),
        ("tags: [a, {b: c}]", '"tags" must be a string or a list of strings'),
        ("a: [b", "the metadata block cannot be read"),
        ("a: b: c", "the metadata block cannot be read"),
        ("!!python/object:x {}", "the metadata block cannot be read"),
        ("- a", "the metadata block cannot be read"),
        ("license: gpl", '"license" must be one of'),
    ],
)
def test_card_that_the_hub_would_refuse_is_one_line(hub, publisher, tmp_path, metadata, message):
    folder = make_model(tmp_path / "model", OPEN)
    (folder / "README.md").write_text(f"---\n{metadata}\n---\n# Model\n")
    assert message in refusal(publisher, "publish_model", folder=folder, repo_id="tester/card")
    assert not any("/commit/" in request for request in hub.requests)


@pytest.mark.parametrize("name", ["LICENSE", "model.safetensors", "README.md"])
def test_links_are_refused_before_anything_is_sent(hub, publisher, tmp_path, name):
    folder = make_model(tmp_path / "model", OPEN)
    (tmp_path / "id_rsa").write_text("-----BEGIN OPENSSH PRIVATE KEY-----")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to("../id_rsa")
    assert "is a link to ../id_rsa" in refusal(
        publisher, "publish_model", folder=folder, repo_id="tester/link"
    )
    assert hub.requests == []
