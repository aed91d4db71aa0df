"""``vividmed build`` from a repository of the Hub and to one."""

import pytest

from tests.fixtures.hub.client import ClientError
from tests.fixtures.others_weights import save_language_model


@pytest.mark.slow
def test_built_model_is_published_privately_and_builds_on_from_there(hub, publisher, stranger, tmp_path):
    save_language_model(tmp_path / "llm", "smollm2")
    build = ["build", "--llm", str(tmp_path / "llm"), "--push-to-hub", "tester/built"]
    done = publisher("vividmed", arguments=build)
    assert done["status"] == 0, done["errors"]
    length = publisher("text_shape", repo_id="tester/built", text="What is seen?")
    assert length[0] == 1
    assert length[2] == 308
    with pytest.raises(ClientError):
        stranger("text_shape", repo_id="tester/built", text="What is seen?")
    # A repository may be the source as well, here of the vision tower.
    again = [*build[:3], "--vision", "tester/built", "--output", str(tmp_path / "again")]
    assert publisher("vividmed", arguments=again)["status"] == 0
    missing = [*build[:3], "--vision", "tester/nothing", "--output", str(tmp_path / "x")]
    refused = publisher("vividmed", arguments=missing)
    assert refused["status"] == 2
    assert "--vision tester/nothing: is no local folder, and cannot be had from the Hub" in refused["errors"]
