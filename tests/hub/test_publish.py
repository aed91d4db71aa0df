"""Publishing to a live Hub on loopback with the real ``huggingface_hub`` and ``datasets`` clients."""

import itertools
import os
import shutil
import signal
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from datasets import Dataset
from PIL import Image
from safetensors.numpy import save_file

from tests.data.test_terms import make_terms
from tests.hub.client import Client, ClientError
from tests.hub.minihub import Hub, serve
from tests.hub.test_dataset_cards import make_facts
from vividmed.data.masks import pack_mask
from vividmed.data.schema import LOCALIZATION
from vividmed.data.terms import write_provenance
from vividmed.hub.dataset_cards import render_dataset_card

OPEN = make_terms()
CLOSED = make_terms(name="closed-set", licence="DUA 1.0", redistribute="no", terms="Ask the owners.")
ON_REQUEST = make_terms(name="request-set", access="registered", redistribute="derived_gated")
CREDENTIALED = make_terms(name="signed-set", access="credentialed", redistribute="derived_gated")
AFFINE = np.diag([-0.7, -0.7, 2.5, 1.0])
REFUSED = "VividMedError"


class LiveHub:
    """A Hub whose server can be stopped and started again at the same address."""

    def __init__(self, root: Path) -> None:
        self.hub = Hub(root, {"hf_tester": "tester", "hf_other": "other"})
        self.port = 0
        self.start()

    def start(self) -> None:
        self.hub.dead, self.hub.dies_after_uploads = False, None
        self.server = serve(self.hub, self.port)
        self.url = self.server.__enter__()
        self.port = int(self.url.rpartition(":")[2])

    def stop(self) -> None:
        self.server.__exit__(None, None, None)


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    live = LiveHub(tmp_path_factory.mktemp("hub"))
    yield live
    live.stop()


@pytest.fixture
def hub(live):
    live.hub.failures_left = 0
    live.hub.requests.clear()
    live.hub.uploads.clear()
    return live.hub


@pytest.fixture(scope="module")
def publisher(live, tmp_path_factory):
    with Client(live.url, "hf_tester", tmp_path_factory.mktemp("publisher")) as client:
        yield client


@pytest.fixture(scope="module")
def stranger(live, tmp_path_factory):
    with Client(live.url, "hf_other", tmp_path_factory.mktemp("stranger")) as client:
        yield client


@pytest.fixture(scope="module")
def nobody(live, tmp_path_factory):
    with Client(live.url, None, tmp_path_factory.mktemp("nobody")) as client:
        yield client


def make_row(number, *, volume):
    grid = np.random.default_rng(number).integers(0, 255, (6, 5, 4), dtype=np.uint8)  # (x, y, z)
    mask = np.zeros((4, 5, 6) if volume else (1, 5, 6), bool)
    mask[..., 1:3, 2:4] = True
    return {
        "id": f"case-{number}",
        "patient": f"p{number}",
        "images": [] if volume else [Image.fromarray(grid[:, :, 0].T)],
        "volumes": [nib.Nifti1Image(grid, AFFINE)] if volume else [],
        "modality": "CT" if volume else "X-ray",
        "targets": ["liver"],
        "absent": ["spleen"],
        "masks": [pack_mask("liver", mask)],
        "boxes": [],
        "source": "chest-set",
        "licence": "CC BY 4.0",
    }


def prepare(folder, terms=OPEN, *, shards=2, first=0):
    """A prepared data set with two kinds of images, and files that must not leave; rows count from ``first``."""
    (folder / "data").mkdir(parents=True)
    (folder / ".work").mkdir()
    numbers = itertools.count(first)
    for split, parts in (("train", shards), ("test", 1)):
        for part in range(parts):
            rows = [make_row(next(numbers), volume=True), make_row(next(numbers), volume=False)]
            path = folder / "data" / f"{split}-{part:05d}-of-{parts:05d}.parquet"
            Dataset.from_list(rows, features=LOCALIZATION).to_parquet(path)
    (folder / "failures.csv").write_text("case,reason\nDOE^JANE,truncated\n")
    shutil.copy(path, folder / ".work" / "train-part.parquet")
    facts = make_facts(
        terms, rows={"train": 2 * shards, "test": 2}, modality_rows={"CT": {"test": 1}}, target_rows={}
    )
    (folder / "README.md").write_text(render_dataset_card(facts))
    return folder


def make_model(folder, *training_data):
    folder.mkdir()
    save_file({"weight": np.arange(6, dtype=np.float32)}, folder / "model.safetensors")
    (folder / "config.json").write_text('{"model_type": "vividmed"}\n')
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n\n# Model\n\nNot a medical device.\n")
    (folder / "samples.jsonl").write_text('{"answer": "seen by Dr. Miller"}\n')
    (folder / "optimizer.pt").write_bytes(b"state")
    if training_data:
        write_provenance(folder, training_data)
    return folder


def push(client, folder, repo_id, terms=OPEN, **options):
    return client("publish_dataset", folder=folder, repo_id=repo_id, terms=asdict(terms), **options)


def refusal(client, name, /, **arguments):
    """Message of the one-line error that the action ends in."""
    with pytest.raises(ClientError) as caught:
        client(name, **arguments)
    assert caught.value.kind == REFUSED, caught.value
    assert "\n" not in str(caught.value)
    return str(caught.value)


def refused_push(client, folder, repo_id, terms=OPEN, **options):
    return refusal(client, "publish_dataset", folder=folder, repo_id=repo_id, terms=asdict(terms), **options)


class TestLoading:
    def test_private_data_set_loads_with_plain_datasets_also_streaming_at_its_revision(
        self, hub, publisher, nobody, stranger, tmp_path
    ):
        folder = prepare(tmp_path / "set")
        published = push(publisher, folder, "tester/private-set")
        assert published["visibility"] == "private"
        assert hub.repos["dataset", "tester/private-set"].private
        for streaming in (False, True):
            loaded = publisher(
                "load",
                repo_id="tester/private-set",
                split="train",
                streaming=streaming,
                revision=published["revision"],
            )
            assert loaded["ids"] == ["case-0", "case-1", "case-2", "case-3"]
            assert np.allclose(loaded["affines"], [AFFINE, AFFINE])
            expected = [float(make_row(n, volume=True)["volumes"][0].get_fdata().sum()) for n in (0, 2)]
            assert loaded["sums"] == expected
            assert loaded["picture_sizes"] == [[6, 5], [6, 5]]
            assert loaded["masks"] == [1, 1, 1, 1]
        for other in (nobody, stranger):
            with pytest.raises(ClientError) as caught:
                other("load", repo_id="tester/private-set", split="train")
            assert caught.value.kind == "DatasetNotFoundError"

    def test_public_data_set_is_read_by_everyone_without_this_project(self, hub, publisher, nobody, tmp_path):
        published = push(publisher, prepare(tmp_path / "set"), "tester/public-set", public=True)
        assert published["visibility"] == "public"
        loaded = nobody("load", repo_id="tester/public-set", split="test", streaming=True)
        assert loaded["ids"] == ["case-4", "case-5"]
        assert not loaded["project_imported"]

    def test_only_what_is_listed_leaves(self, hub, publisher, tmp_path):
        push(publisher, prepare(tmp_path / "set"), "tester/listed-set")
        assert sorted(hub.files("dataset", "tester/listed-set")) == [
            ".gitattributes",
            "README.md",
            "data/test-00000-of-00001.parquet",
            "data/train-00000-of-00002.parquet",
            "data/train-00001-of-00002.parquet",
            "terms.json",
        ]

    def test_a_revision_keeps_its_rows_after_a_later_push_which_leaves_no_stale_shard(
        self, hub, publisher, tmp_path
    ):
        first = push(publisher, prepare(tmp_path / "first", shards=3), "tester/moving-set")["revision"]
        second = push(publisher, prepare(tmp_path / "second", shards=1), "tester/moving-set")["revision"]
        assert first != second
        assert publisher("pinned_revision", repo_id="tester/moving-set") == second
        rows = {
            revision: publisher("load", repo_id="tester/moving-set", split="train", revision=revision)["ids"]
            for revision in (first, second)
        }
        assert [len(rows[first]), len(rows[second])] == [6, 2]

    def test_pushing_again_unchanged_sends_nothing(self, hub, publisher, tmp_path):
        folder = prepare(tmp_path / "set")
        first = push(publisher, folder, "tester/same-set")
        hub.uploads.clear()
        assert push(publisher, folder, "tester/same-set") == first
        assert hub.uploads == []


class TestTerms:
    @pytest.mark.parametrize(
        ("terms", "options", "remedy"),
        [
            (CLOSED, {"public": True}, "keep it private"),
            (CLOSED, {"gated": True}, "keep it private"),
            (CREDENTIALED, {"gated": True}, "keep it private"),
            (ON_REQUEST, {"public": True}, "keep it private, or make it gated"),
        ],
    )
    def test_audience_that_the_terms_forbid_is_refused_before_anything_is_sent(
        self, hub, publisher, tmp_path, terms, options, remedy
    ):
        message = refused_push(
            publisher, prepare(tmp_path / "set", terms), "tester/refused-set", terms, **options
        )
        assert str(terms) in message
        assert message.endswith(remedy)
        assert hub.requests == []

    def test_data_that_may_not_be_passed_on_can_be_private_and_its_card_says_so(
        self, hub, publisher, tmp_path
    ):
        assert (
            push(publisher, prepare(tmp_path / "set", CLOSED), "tester/closed-set", CLOSED)["visibility"]
            == "private"
        )
        assert b"May not be redistributed" in hub.read("dataset", "tester/closed-set", "README.md")
        assert b'"redistribute": "no"' in hub.read("dataset", "tester/closed-set", "terms.json")

    def test_card_that_hides_the_terms_is_refused(self, hub, publisher, tmp_path):
        message = refused_push(publisher, prepare(tmp_path / "set", OPEN), "tester/hidden-set", CLOSED)
        assert "README.md does not say 'May not be redistributed'" in message

    def test_existing_public_repository_takes_no_private_data(self, hub, publisher, tmp_path):
        push(publisher, prepare(tmp_path / "open"), "tester/seen-set", public=True)
        before = hub.files("dataset", "tester/seen-set")
        for name, terms in (("closed", CLOSED), ("again", OPEN)):
            message = refused_push(publisher, prepare(tmp_path / name, terms), "tester/seen-set", terms)
            assert "tester/seen-set exists and is public" in message
            assert str(terms) in message
        assert hub.files("dataset", "tester/seen-set") == before

    def test_gated_data_is_seen_by_all_and_read_by_those_let_in(self, hub, publisher, stranger, tmp_path):
        folder = prepare(tmp_path / "set", ON_REQUEST)
        assert push(publisher, folder, "tester/gated-set", ON_REQUEST, gated=True)["visibility"] == "gated"
        with pytest.raises(ClientError):
            stranger("load", repo_id="tester/gated-set", split="test")
        hub.repos["dataset", "tester/gated-set"].readers.add("other")
        assert len(stranger("load", repo_id="tester/gated-set", split="test")["ids"]) == 2

    def test_terms_that_differ_from_those_of_the_preparation_are_refused(self, hub, publisher, tmp_path):
        folder = prepare(tmp_path / "set", CLOSED)
        push(publisher, folder, "tester/kept-set", CLOSED)
        assert "terms.json differs from the terms given" in refused_push(
            publisher, folder, "tester/kept-set", OPEN, public=True
        )


class TestFaults:
    def test_upload_goes_on_after_the_server_died_and_sends_no_shard_twice(
        self, live, hub, publisher, tmp_path
    ):
        folder = prepare(tmp_path / "set", shards=8, first=1000)
        hub.dies_after_uploads = 3
        message = refused_push(publisher, folder, "tester/cut-set")
        assert "run the same command again to send the rest" in message
        kept = list(hub.uploads)
        assert len(kept) == 3
        live.stop()
        live.start()
        published = push(publisher, folder, "tester/cut-set")
        assert set(Counter(hub.uploads).values()) == {1}
        assert len(hub.uploads) == 9
        loaded = publisher("load", repo_id="tester/cut-set", split="train", revision=published["revision"])
        assert len(loaded["ids"]) == 16
        for path in folder.rglob("data/*.parquet"):
            assert hub.read("dataset", "tester/cut-set", f"data/{path.name}") == path.read_bytes()

    def test_upload_goes_on_after_the_client_was_killed(self, hub, publisher, tmp_path):
        folder = prepare(tmp_path / "set", shards=8, first=2000)
        hub.dies_after_uploads = 3
        arguments = {"folder": folder, "repo_id": "tester/killed-set", "terms": asdict(OPEN)}
        child = publisher("start", action="publish_dataset", arguments=arguments)
        deadline = time.monotonic() + 60
        while not hub.dead and time.monotonic() < deadline:
            time.sleep(0.005)
        os.kill(child, signal.SIGKILL)
        assert len(hub.uploads) == 3
        assert list(hub.files("dataset", "tester/killed-set")) == [".gitattributes"]
        hub.dead = False
        push(publisher, folder, "tester/killed-set")
        assert set(Counter(hub.uploads).values()) == {1}
        assert len(hub.files("dataset", "tester/killed-set")) == 12

    def test_passing_server_errors_are_waited_out(self, hub, publisher, tmp_path):
        hub.failures_left = 4
        assert push(publisher, prepare(tmp_path / "set"), "tester/busy-set")["visibility"] == "private"
        assert hub.failures_left == 0

    def test_lasting_server_errors_end_after_bounded_attempts_in_an_instruction(
        self, hub, publisher, tmp_path
    ):
        hub.failures_left = 1000
        message = refused_push(publisher, prepare(tmp_path / "set"), "tester/down-set")
        assert "could not be reached in 5 attempts" in message
        assert "503" in message
        assert hub.failures_left == 995

    def test_foreign_namespace_is_refused_with_the_remedy(self, hub, publisher, tmp_path):
        push_as_other = {
            "token": "hf_other",
            "action": "publish_dataset",
            "arguments": {
                "folder": prepare(tmp_path / "set"),
                "repo_id": "tester/foreign-set",
                "terms": asdict(OPEN),
                "public": True,
            },
        }
        assert "this account may not write there" in refusal(publisher, "as_user", **push_as_other)
        push(publisher, tmp_path / "set", "tester/foreign-set", public=True)
        head = hub.repos["dataset", "tester/foreign-set"].branches["main"]
        (tmp_path / "set" / "README.md").write_text("---\nlicense: mit\n---\n# Changed\n")
        assert "this account may not write there" in refusal(publisher, "as_user", **push_as_other)
        assert hub.repos["dataset", "tester/foreign-set"].branches["main"] == head

    @pytest.mark.parametrize(
        ("action", "options", "repo_id", "remedy"),
        [
            ("as_user", {"token": None}, "nobody/set", "run `hf auth login` or set HF_TOKEN"),
            ("as_user", {"token": "hf_wrong"}, "tester/set", "run `hf auth login` or set HF_TOKEN"),
            ("offline", {}, "tester/set", "HF_HUB_OFFLINE is set"),
            ("as_user", {"token": "hf_tester"}, "a/b/c", "write namespace/name"),
        ],
    )
    def test_failures_of_login_connection_and_name_end_in_the_remedy(
        self, hub, publisher, tmp_path, action, options, repo_id, remedy
    ):
        arguments = {"folder": prepare(tmp_path / "set"), "repo_id": repo_id, "terms": asdict(OPEN)}
        message = refusal(publisher, action, action="publish_dataset", arguments=arguments, **options)
        assert remedy in message
        assert ("dataset", repo_id) not in hub.repos

    def test_unknown_revision_is_named(self, hub, publisher, tmp_path):
        push(publisher, prepare(tmp_path / "set"), "tester/revision-set")
        message = refusal(publisher, "pinned_revision", repo_id="tester/revision-set", revision="v9")
        assert "no such revision" in message


class TestPrivacyAndFolders:
    def test_identifying_text_stops_the_push_before_anything_is_sent(self, hub, publisher, tmp_path):
        folder = prepare(tmp_path / "set")
        with (folder / "README.md").open("a") as card:
            card.write("\nScanned on 2019-03-14.\n")
        message = refused_push(publisher, folder, "tester/dated-set")
        assert "date '2019-03-14' in README.md" in message
        assert hub.requests == []
        assert push(publisher, folder, "tester/dated-set", accept=["2019-03-14"])["visibility"] == "private"

    def test_incomplete_folders_are_named_with_the_remedy(self, hub, publisher, tmp_path):
        folder = prepare(tmp_path / "set")
        assert "is no folder" in refused_push(publisher, tmp_path / "none", "tester/set")
        (folder / "README.md").rename(folder / "CARD.md")
        assert "README.md is missing" in refused_push(publisher, folder, "tester/set")
        (folder / "README.md").write_text("# No metadata\n")
        assert "no field 'license'" in refused_push(publisher, folder, "tester/set", public=True)
        shutil.rmtree(folder / "data")
        assert "holds no Parquet file" in refused_push(publisher, folder, "tester/set")
        assert hub.requests == []


class TestModels:
    def test_model_without_known_training_data_is_private_only(self, hub, publisher, tmp_path):
        folder = make_model(tmp_path / "model")
        assert publisher("publish_model", folder=folder, repo_id="tester/plain")["visibility"] == "private"
        for audience in ("public", "gated"):
            message = refusal(
                publisher, "publish_model", folder=folder, repo_id="tester/plain", **{audience: True}
            )
            assert "provenance.json is missing" in message

    def test_only_weights_configuration_card_and_provenance_leave(self, hub, publisher, nobody, tmp_path):
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

    def test_one_credentialed_data_set_makes_a_model_private_or_gated(
        self, hub, publisher, stranger, tmp_path
    ):
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

    def test_gate_of_an_existing_public_model_is_closed_before_the_weights_arrive(
        self, hub, publisher, tmp_path
    ):
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

    def test_pickled_weights_are_not_published(self, hub, publisher, tmp_path):
        folder = make_model(tmp_path / "model")
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
        message = refusal(publisher, "publish_model", folder=folder, repo_id="tester/pickle")
        assert "holds no safetensors file" in message


class TestCommand:
    def test_command_publishes_by_the_terms_in_the_folder_and_prints_the_pinned_load(
        self, hub, publisher, tmp_path
    ):
        folder = prepare(tmp_path / "set")
        refused = publisher("command", arguments=["dataset", str(folder), "tester/command-set"])
        assert refused["status"] == 2
        assert refused["errors"].startswith("error: ")
        assert "terms.json is missing" in refused["errors"]
        push(publisher, folder, "tester/command-set")
        done = publisher("command", arguments=["dataset", str(folder), "tester/command-set", "--public"])
        assert done["status"] == 0
        head = hub.repos["dataset", "tester/command-set"].branches["main"]
        assert "tester/command-set is public" in done["output"]
        assert f'load_dataset("tester/command-set", revision="{head}")' in done["output"]

    def test_command_publishes_models(self, hub, publisher, tmp_path):
        folder = make_model(tmp_path / "model", CREDENTIALED)
        done = publisher("command", arguments=["model", str(folder), "tester/command-model", "--gated"])
        assert done["status"] == 0
        assert "is gated at commit" in done["output"]
