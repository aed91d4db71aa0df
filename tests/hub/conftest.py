"""One live Hub and its clients for all tests of this folder: starting a client takes seconds."""

from pathlib import Path

import pytest

from tests.fixtures.hub.client import Client
from tests.fixtures.hub.minihub import Hub, serve


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


@pytest.fixture(scope="package")
def live(tmp_path_factory):
    live = LiveHub(tmp_path_factory.mktemp("hub"))
    yield live
    live.stop()


@pytest.fixture
def hub(live):
    live.hub.failures_left = 0
    live.hub.dead, live.hub.dies_after_uploads = False, None
    live.hub.requests.clear()
    live.hub.uploads.clear()
    return live.hub


@pytest.fixture(scope="package")
def publisher(live, tmp_path_factory):
    with Client(live.url, "hf_tester", tmp_path_factory.mktemp("publisher")) as client:
        yield client


@pytest.fixture(scope="package")
def stranger(live, tmp_path_factory):
    with Client(live.url, "hf_other", tmp_path_factory.mktemp("stranger")) as client:
        yield client


@pytest.fixture(scope="package")
def nobody(live, tmp_path_factory):
    with Client(live.url, None, tmp_path_factory.mktemp("nobody")) as client:
        yield client
