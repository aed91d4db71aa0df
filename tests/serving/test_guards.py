"""Access, limits and shutdown."""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx2
import pytest

from tests.fixtures.servers import MODEL, png, serve, zipped
from tests.serving.test_chat import question
from vividmed.cli.main import main
from vividmed.processing.limits import MAX_BYTES_VARIABLE
from vividmed.serving.application import create_app
from vividmed.serving.settings import ServerSettings

TOKEN = "0123456789abcdef0123"


@pytest.fixture(scope="module")
def strict(predictor):
    """A server with a token and small limits."""
    settings = ServerSettings(
        model_name="tiny",
        token=TOKEN,
        cors_origins=("https://viewer.example.org",),
        max_body_bytes=200_000,
        max_bytes_in_flight=300_000,
        max_requests=2,
        timeout=1,
    )
    app = create_app(predictor, settings)
    with serve(app) as address:
        yield address, app


def chat(address, *, headers=None, **body):
    headers = {"Authorization": f"Bearer {TOKEN}"} | (headers or {})
    body = {"model": "tiny", "max_tokens": 1, "messages": question(png())} | body
    return httpx2.post(f"{address}/v1/chat/completions", json=body, headers=headers, timeout=30)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Authorization": ""}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": f"Basic {TOKEN}"}, 401),
        ({"Authorization": f"Bearer {TOKEN}x"}, 401),
        ({"Authorization": b"Bearer \xff\xfe"}, 401),
        ({"Origin": "https://evil.example.org"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "https://viewer.example.org"}, 200),
    ],
)
def test_only_the_token_and_known_origins_are_let_in(strict, headers, status):
    answer = chat(strict[0], headers=headers)
    assert answer.status_code == status
    assert ("WWW-Authenticate" in answer.headers) == (status == 401)
    assert TOKEN not in answer.text


def test_routes_but_health_need_the_token(strict):
    status = {
        path: httpx2.get(strict[0] + path).status_code
        for path in ("/health", "/metrics", "/docs", "/v1/models")
    }
    assert status == {"/health": 200, "/metrics": 401, "/docs": 401, "/v1/models": 401}


def test_server_without_token_answers_this_machine_only(predictor):
    app = create_app(predictor, ServerSettings(model_name="tiny", allowed_hosts=("127.0.0.1", "localhost")))
    with serve(app) as address:
        port = address.rpartition(":")[2]
        for host, status in {f"localhost:{port}": 200, f"evil.example.org:{port}": 403, "[": 403}.items():
            assert httpx2.get(f"{address}/health", headers={"Host": host}).status_code == status
        assert httpx2.get(f"{address}/health", headers={"Origin": address}).status_code == 200


def test_large_body_is_refused_by_its_claim_and_while_it_arrives(strict):
    address, _ = strict
    assert chat(address, messages=question(os.urandom(300_000))).status_code == 413

    def pieces():
        for _ in range(30):
            yield b" " * 10_000

    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    try:
        answer = httpx2.post(f"{address}/v1/ground", content=pieces(), headers=headers)
    except httpx2.TransportError:  # the server closed the connection while we were still sending
        return
    assert answer.status_code == 413


def test_a_malformed_body_is_refused_without_a_traceback(strict, caplog):
    address, _ = strict
    host, port = address.removeprefix("http://").split(":")
    log = logging.getLogger("uvicorn.error")
    log.addHandler(caplog.handler)
    caplog.set_level(logging.WARNING, logger="uvicorn.error")
    head = f"POST /v1/ground HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\n"
    try:
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\nZZ\r\n".encode())
            assert connection.recv(1000).startswith(b"HTTP/1.1 400")
        assert chat(address).status_code == 200
    finally:
        log.removeHandler(caplog.handler)
    assert {record.getMessage() for record in caplog.records} == {"Invalid HTTP request received."}


def test_too_many_requests_and_slow_ones_are_refused(strict):
    address, app = strict
    host, port = address.removeprefix("http://").split(":")
    head = (
        f"POST /v1/ground HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\n"
        "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    )
    slow = [socket.create_connection((host, int(port))) for _ in range(2)]
    for connection in slow:
        connection.sendall(head.encode())
    while app.state.service.metrics.in_flight._value.get() < 2:
        time.sleep(0.01)
    refused = chat(address)
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
    assert refused.json()["error"]["type"] == "rate_limit_error"
    for connection in slow:
        assert b"408" in connection.recv(1000)
        connection.close()
    while app.state.service.metrics.in_flight._value.get():
        time.sleep(0.01)
    assert chat(address).status_code == 200


def test_late_answer_is_given_up(strict, monkeypatch):
    address, app = strict
    busy = threading.Event()
    monkeypatch.setattr(
        app.state.service.predictor.model, "generate", lambda **inputs: busy.wait(2) and None, raising=True
    )
    answers: list = []
    first = threading.Thread(target=lambda: answers.append(chat(address)))
    first.start()
    while not app.state.service.metrics.in_flight._value.get():
        time.sleep(0.01)
    time.sleep(0.2)
    late = chat(address)
    busy.set()
    first.join()
    monkeypatch.undo()
    assert (late.status_code, late.json()["error"]["code"], late.headers["Retry-After"]) == (
        503,
        "timeout",
        "10",
    )
    assert chat(address).status_code == 200


def bomb(name: str, monkeypatch) -> bytes:
    monkeypatch.setenv(MAX_BYTES_VARIABLE, "1000000")
    if name == "zip":
        return zipped({"a.nii": bytes(5_000_000)})
    if name == "many":
        monkeypatch.setattr("vividmed.serving.uploads.MAX_ENTRIES", 10)
        return zipped({str(number): b"x" for number in range(20)})
    import io

    import nibabel as nib
    import numpy as np
    from PIL import Image

    if name == "nifti":
        import gzip

        return gzip.compress(nib.Nifti1Image(np.zeros((200, 200, 50), np.int16), None).to_bytes())
    monkeypatch.setenv("VIVIDMED_MAX_IMAGE_PIXELS", "1000000")
    stream = io.BytesIO()
    Image.new("1", (4000, 4000)).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize("name", ["zip", "many", "nifti", "png"])
def test_small_file_that_claims_a_large_image_is_refused(strict, monkeypatch, name):
    answer = chat(strict[0], messages=question(bomb(name, monkeypatch)))
    assert answer.status_code in (400, 413)
    assert "limit" in answer.json()["error"]["message"] or "at most" in answer.json()["error"]["message"]
    assert not list(strict[1].state.service.root.iterdir())


@pytest.mark.parametrize(
    ("arguments", "token", "message"),
    [
        (["--host", "0.0.0.0"], None, "VIVIDMED_TOKEN"),
        (["--host", "0.0.0.0"], "short", "at least 16"),
        (["--token-file", "absent.txt"], None, "absent.txt"),
        (["--host", "no such host"], TOKEN, "cannot listen"),
        (["--port", "99999"], None, "is not a port"),
        (["--cors-origin", "*"], None, "is not an origin"),
        (["--model", "absent"], None, "absent"),
        (["--timeout", "0"], None, "above 0"),
    ],
)
def test_wrong_argument_is_one_line(monkeypatch, tmp_path, capsys, arguments, token, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("VIVIDMED_TOKEN", raising=False)
    monkeypatch.setenv(MAX_BYTES_VARIABLE, "")
    if token:
        monkeypatch.setenv("VIVIDMED_TOKEN", token)
    assert main(["serve", "--model", str(MODEL), "--port", "0", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert TOKEN not in error


@pytest.mark.slow
def test_server_stops_after_the_answers_in_progress(tmp_path):
    environment = os.environ | {"TMPDIR": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "vividmed.cli.main", "serve", "--model", str(MODEL), "--port", "0"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[1].removesuffix("/v1")
        assert len(list(tmp_path.glob("vividmed-serve-*"))) == 1
        body = {"model": "model", "max_tokens": 60, "stream": True, "messages": question(png())}
        with httpx2.stream("POST", f"{address}/v1/chat/completions", json=body, timeout=60) as answer:
            assert answer.status_code == 200
            lines = answer.iter_lines()
            next(lines)
            process.send_signal(signal.SIGTERM)
            rest = [line for line in lines if line]
        assert '"finish_reason":"length"' in rest[-2]
        assert rest[-1] == "data: [DONE]"
        assert process.wait(timeout=30) == 0
    assert not list(tmp_path.glob("vividmed-serve-*"))
