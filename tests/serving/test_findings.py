"""Grounding and segmentation over HTTP, and what the server says about itself."""

import base64
import json

import httpx2
import numpy as np
import pytest

from tests.fixtures.servers import nifti, png
from vividmed.data.masks import unpack_mask
from vividmed.processing.reading import read_encoded


@pytest.fixture(scope="module")
def http(address):
    with httpx2.Client(base_url=address, timeout=60) as client:
        yield client


def url(content: bytes) -> str:
    return "data:;base64," + base64.b64encode(content).decode()


def test_targets_are_drawn_as_by_the_predictor(http, predictor):
    body = {"image": url(nifti()), "targets": ["liver", "left kidney"], "masks": "packed"}
    found = http.post("/v1/segment", json=body).json()
    expected = predictor(read_encoded(nifti(), "scan"), task="segment", targets=["liver", "left kidney"])
    assert [phrase["text"] for phrase in found["phrases"]] == ["liver", "left kidney"]
    for phrase, wanted in zip(found["phrases"], expected.grounded.phrases, strict=True):
        assert (phrase["mask"] is None) == (wanted.mask is None)
        if wanted.mask is not None:
            bits = base64.b64decode(phrase["mask"]["data"])
            mask = unpack_mask(
                {"target": "", "box": phrase["mask"]["box"], "bits": bits}, found["grid"]["size"]
            )
            assert np.array_equal(mask, wanted.mask)
    form = http.post(
        "/v1/segment", data={"targets": "liver, left kidney", "masks": "packed"}, files={"file": nifti()}
    )
    assert form.json() == found


@pytest.mark.parametrize("text", ["A <p>mass</p> in the liver.", "There is a small pleural effusion."])
def test_phrases_of_a_report_are_found(http, text):
    form = {"request": json.dumps({"text": text, "masks": "none", "formats": ["png"]})}
    found = http.post("/v1/ground", data=form, files={"file": png()}).json()
    (phrase,) = found["phrases"]
    assert phrase["text"] in ("mass", "small pleural effusion")
    assert phrase["mask"] is None
    (picture,) = found["files"]
    assert base64.b64decode(picture["data"]).startswith(b"\x89PNG")


JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("path", "options", "status", "words"),
    [
        ("/v1/segment", {"json": {"targets": ["liver"]}}, 400, "scan once"),
        ("/v1/segment", {"json": {"image": "data:,x", "targets": []}}, 400, "targets"),
        ("/v1/segment", {"json": {"image": url(png()), "targets": [" "]}}, 400, "targets"),
        ("/v1/segment", {"json": {"image": url(png()), "targets": ["a<p>b"]}}, 400, "<p>"),
        ("/v1/segment", {"json": {"image": url(png()), "targets": ["x"], "model": "y"}}, 404, "not served"),
        ("/v1/segment", {"json": {"image": url(png()), "targets": ["x"], "mask": 1}}, 400, "mask"),
        ("/v1/ground", {"json": {"image": url(png()), "text": "No mass."}}, 400, "names nothing"),
        ("/v1/ground", {"data": {"text": "A mass."}, "files": {"scan": png()}}, 400, "field file"),
        (
            "/v1/ground",
            {"data": {"request": "{}", "text": "A mass."}, "files": {"file": png()}},
            400,
            "request",
        ),
        (
            "/v1/ground",
            {"data": {"text": "A mass."}, "files": [("file", png()), ("file", png())]},
            400,
            "not DICOM",
        ),
        ("/v1/ground", {"content": b"{", "headers": {"content-type": "application/json"}}, 400, "JSON"),
        ("/v1/ground", {"content": b'{"text": "\xff"}', "headers": JSON}, 400, "JSON"),
        ("/v1/ground", {"content": b"[" * 100_000, "headers": JSON}, 400, "JSON"),
        ("/v1/ground", {"content": b"[" * 500 + b"]" * 500, "headers": JSON}, 400, ""),
        ("/v1/ground", {"content": b"null", "headers": JSON}, 400, ""),
        (
            "/v1/ground",
            {"content": b'{"image": "data:,x", "text": "\\ud800"}', "headers": JSON},
            400,
            "",
        ),
        (
            "/v1/chat/completions",
            {
                "content": b'{"messages": [{"role": "user", "content": "\\ud800"}], "model": "tiny"}',
                "headers": JSON,
            },
            400,
            "",
        ),
        (
            "/v1/chat/completions",
            {
                "content": b'{"messages": [{"role": "user", "content": "x"}], "model": "tiny", "max_tokens": 1e999}',
                "headers": JSON,
            },
            400,
            "max_tokens",
        ),
        (
            "/v1/chat/completions",
            {
                "content": b'{"messages": [{"role": "user", "content": "x"}], "model": "tiny", "temperature": NaN}',
                "headers": JSON,
            },
            400,
            "",
        ),
        (
            "/v1/chat/completions",
            {
                "content": b'{"messages": [{"role": "user", "content": "x"}], "model": "tiny", "seed": 99999999999999999999999}',
                "headers": JSON,
            },
            400,
            "seed",
        ),
        ("/v1/ground", {"content": b"x", "headers": {"content-type": "text/plain"}}, 415, "application/json"),
        ("/v1/ground", {"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "form"),
        (
            "/v1/ground",
            {"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=b"}},
            400,
            "",
        ),
        ("/v1/nothing", {"json": {}}, 404, "Not Found"),
        ("/health", {"json": {}}, 405, "Not Allowed"),
    ],
)
def test_wrong_request_is_one_error(http, path, options, status, words):
    answer = http.post(path, **options)
    error = answer.json()["error"]
    assert (answer.status_code, words in error["message"]) == (status, True), error
    assert "\n" not in error["message"]
    assert "/tmp" not in error["message"]


def test_server_describes_itself(http, client):
    assert http.get("/health").json() == {"status": "ok", "waiting": 0}
    client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "Hello?"}], max_tokens=1
    )
    http.get("/no/such/path")
    figures = http.get("/metrics").text
    assert 'vividmed_requests_total{path="/v1/chat/completions",status="200"}' in figures
    assert 'vividmed_requests_total{path="other",status="404"}' in figures
    assert "vividmed_first_token_seconds_count" in figures
    assert "no/such" not in figures
    page = http.get("/docs").text
    assert "POST /v1/segment" in page
    assert "vividmed" in page
    assert "https://" not in page
