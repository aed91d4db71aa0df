"""Studies of an archive, answered by the model that also serves clients."""

import time

import httpx2
import numpy as np
import pytest

pytest.importorskip("dicomweb_client")

from tests.fixtures.dicom_files import write_series
from tests.fixtures.servers import serve
from vividmed import VividMedError
from vividmed.cli.main import main
from vividmed.pacs.client import Series
from vividmed.serving.application import create_app
from vividmed.serving.archive import answer_archive
from vividmed.serving.settings import ServerSettings

STUDY = "1.2.826.0.1.3680043.8.498.7"


class Archive:
    """An archive in memory with one study; it refuses the first look."""

    name = "archive"

    def __init__(self):
        self.stored = {}
        self.looks = 0
        self.filters = None

    def find_studies(self, filters=None):
        self.looks += 1
        self.filters = filters
        if self.looks == 1:
            raise VividMedError("archive: cannot search for studies")
        return [STUDY]

    def find_series(self, study):
        return [Series(study, f"{study}.1", "CT", ("1", "2"))]

    def find_instances(self, study, series=None):
        return tuple(uid for uid, one in self.stored.items() if series in (None, str(one.SeriesInstanceUID)))

    def fetch_series(self, series, folder):
        folder.mkdir(parents=True)
        volume = np.random.default_rng(0).integers(0, 500, (4, 12, 16)).astype(np.int16)
        fields = {"StudyInstanceUID": STUDY, "SeriesInstanceUID": f"{STUDY}.1", "SliceThickness": 2.5}
        write_series(folder, volume, FrameOfReferenceUID=f"{STUDY}.2", **fields)

    def fetch_instance(self, study, series, instance):
        return self.stored[instance]

    def store(self, datasets):
        self.stored |= {str(one.SOPInstanceUID): one for one in datasets}


def test_studies_are_answered_once_while_clients_are_served(predictor):
    archive = Archive()
    app = create_app(predictor, ServerSettings(model_name="tiny", max_new_tokens=4))
    filters = {"StudyDate": "20260101-"}
    answer_archive(app.state.service, source=archive, destination=archive, filters=filters, interval=0.02)
    with serve(app) as address:
        end = time.monotonic() + 120
        while not archive.stored and time.monotonic() < end:
            assert httpx2.get(f"{address}/health").status_code == 200
            time.sleep(0.02)
        first = dict(archive.stored)
        looks = archive.looks
        while archive.looks < looks + 3 and time.monotonic() < end:
            time.sleep(0.02)
    assert archive.filters == filters
    assert "SR" in {one.Modality for one in first.values()}
    assert {str(one.StudyInstanceUID) for one in first.values()} == {STUDY}
    assert archive.stored == first
    looks = archive.looks
    time.sleep(0.1)
    assert archive.looks == looks, "the archive is still watched after the server has stopped"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--since", "20260101"], "need --dicomweb"),
        (["--to-dicomweb", "http://localhost/dicom-web"], "need --dicomweb"),
        (["--dicomweb", "http://localhost/dicom-web", "--since", "tomorrow"], "write it as YYYYMMDD"),
        (["--dicomweb", "ftp://localhost"], "begins with http://"),
    ],
)
def test_wrong_archives_are_refused_in_one_line(capsys, options, message):
    assert main(["serve", "--model", "nowhere", *options]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
