"""Archives that do not accept the token, or are something else: one line, and nothing of a study is stored."""

import http.server
import json
import threading
from contextlib import contextmanager

import numpy as np
import pytest

pytest.importorskip("dicomweb_client")

from tests.fixtures.dicom_files import write_series
from tests.fixtures.paths import REPOSITORY
from vividmed import VividMedError
from vividmed.cli.main import main
from vividmed.inference.predictor import Result
from vividmed.pacs.client import Pacs, TokenError
from vividmed.pacs.worker import process_studies
from vividmed.processing.grounded_text import GroundedText
from vividmed.processing.reading import read_image

MODEL = str(REPOSITORY / "tests" / "fixtures" / "checkpoints" / "556ac31" / "model")


@contextmanager
def archive(answer):
    """A server whose answers are (status, type, body) of a method and path; yields its URL and what was asked."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.command, self.path, self.headers.get("Authorization")))
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, kind, body = answer(self.command, self.path)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/dicom-web", asked
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("studies", [1, 2])
def test_a_token_that_is_refused_ends_the_run_in_one_line(monkeypatch, capsys, studies):
    monkeypatch.setenv("DICOMWEB_TOKEN", "expired-token-of-a-hospital")
    with archive(lambda method, path: (401, "text/plain", b"expired")) as (url, asked):
        arguments = ["predict", "--model", MODEL, "--from-dicomweb", url, "--to-dicomweb", url, "--study"]
        assert main([*arguments, *(f"1.2.{number}" for number in range(studies))]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "DICOMWEB_TOKEN" in error
    assert "expired-token" not in error
    assert [authorization for *_, authorization in asked] == ["Bearer expired-token-of-a-hospital"]


@pytest.mark.parametrize(
    ("kind", "body"),
    [("text/html", b"<html>Log in</html>"), ("application/json", b"{"), ("application/dicom+json", b'"x"')],
)
def test_a_server_that_is_no_archive_is_said_at_once(kind, body):
    with archive(lambda method, path: (200, kind, body)) as (url, asked):
        with pytest.raises(VividMedError, match="not DICOMweb; check the URL"):
            Pacs(url, wait=0).find_studies()
        assert len(asked) == 1


def test_an_archive_that_repeats_its_first_page_is_searched_once():
    body = json.dumps(
        [{"0020000D": {"vr": "UI", "Value": [f"1.2.{number}"]}} for number in range(3)]
    ).encode()
    with archive(lambda method, path: (200, "application/dicom+json", body)) as (url, asked):
        assert Pacs(url).find_studies() == ["1.2.0", "1.2.1", "1.2.2"]
        assert len(asked) == 2


def test_nothing_is_stored_when_the_token_expires_before_the_results_are_sent(tmp_path):
    """The images can be read, the results may not be written: the next study is not begun."""
    write_series(
        tmp_path / "series", np.zeros((2, 8, 8), np.int16), SliceThickness=2.5, StudyInstanceUID="1.2.1"
    )
    image = read_image(tmp_path / "series")

    class Source:
        name = "source"

        def find_series(self, study):
            from vividmed.pacs.client import Series

            return [Series(study, f"{study}.1", "CT", ("1.2.3",))]

        def fetch_series(self, series, folder):
            begun.append(series.study)

    class Stub:
        identity = "weights"

        def predict_batch(self, scans, **options):
            return [Result(image, "report", "?", GroundedText("Nothing is seen."))]

    def answer(method, path):
        return (
            (401, "text/plain", b"")
            if method == "POST"
            else (200, "application/dicom+json", json.dumps([]).encode())
        )

    begun = []
    with archive(answer) as (url, asked), pytest.raises(TokenError):
        list(process_studies(Stub(), ["1.2.1", "1.2.2"], source=Source(), destination=Pacs(url, wait=0)))
    assert begun == ["1.2.1"]
    assert [method for method, *_ in asked].count("POST") == 1
