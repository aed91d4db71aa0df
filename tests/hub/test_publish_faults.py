"""Uploads that are cut off or refused by a live Hub on loopback."""

import os
import signal
import time
from collections import Counter
from dataclasses import asdict

import pytest

from tests.fixtures.hub.folders import OPEN, prepare
from tests.fixtures.hub.pushes import push, refusal, refused_push


def test_upload_resumes_after_the_server_died_and_sends_no_shard_twice(live, hub, publisher, tmp_path):
    folder = prepare(tmp_path / "set", shards=8, first=1000)
    hub.dies_after_uploads = 3
    message = refused_push(publisher, folder, "tester/cut-set")
    assert "run the same command again to send the rest" in message
    assert len(hub.uploads) == 3
    live.stop()
    live.start()
    published = push(publisher, folder, "tester/cut-set")
    assert set(Counter(hub.uploads).values()) == {1}
    assert len(hub.uploads) == 9
    loaded = publisher("load", repo_id="tester/cut-set", split="train", revision=published["revision"])
    assert len(loaded["ids"]) == 16
    for path in folder.rglob("data/*.parquet"):
        assert hub.read("dataset", "tester/cut-set", f"data/{path.name}") == path.read_bytes()


def test_upload_resumes_after_the_client_was_killed(hub, publisher, tmp_path):
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


def test_passing_server_errors_are_waited_out(hub, publisher, tmp_path):
    hub.failures_left = 4
    assert push(publisher, prepare(tmp_path / "set"), "tester/busy-set")["visibility"] == "private"
    assert hub.failures_left == 0


def test_lasting_server_errors_end_after_bounded_attempts_in_an_instruction(hub, publisher, tmp_path):
    hub.failures_left = 1000
    message = refused_push(publisher, prepare(tmp_path / "set"), "tester/down-set")
    assert "could not be reached in 5 attempts" in message
    assert "503" in message
    assert hub.failures_left == 995


def test_foreign_namespace_is_refused_with_the_remedy(hub, publisher, tmp_path):
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
    hub, publisher, tmp_path, action, options, repo_id, remedy
):
    arguments = {"folder": prepare(tmp_path / "set"), "repo_id": repo_id, "terms": asdict(OPEN)}
    message = refusal(publisher, action, action="publish_dataset", arguments=arguments, **options)
    assert remedy in message
    assert ("dataset", repo_id) not in hub.repos


def test_unknown_revision_is_named(hub, publisher, tmp_path):
    push(publisher, prepare(tmp_path / "set"), "tester/revision-set")
    message = refusal(publisher, "pinned_revision", repo_id="tester/revision-set", revision="v9")
    assert "no such revision" in message
