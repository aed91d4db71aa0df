"""Studies out of a real archive and results into it, with kills on either side."""

import os
import signal
import threading

import numpy as np
import pydicom
import pytest

pytest.importorskip("dicomweb_client")

from tests.fixtures.dicom_files import write_series
from tests.fixtures.orthanc import Orthanc
from vividmed import VividMedError, read_image
from vividmed.inference.predictor import Result
from vividmed.pacs.client import Pacs
from vividmed.pacs.worker import Question, process_studies, watch
from vividmed.processing.grounded_text import GroundedText, Phrase

STUDIES = ["1.2.826.0.1.3680043.8.498.1", "1.2.826.0.1.3680043.8.498.2", "1.2.826.0.1.3680043.8.498.3"]
TEXT = "A cyst of the left kidney."
SIZE = (4, 12, 16)


def mask():
    voxels = np.zeros(SIZE, dtype=bool)
    voxels[1:3, 4:8, 5:13] = True
    return voxels


class Stub:
    """A predictor that reads the scan and finds the same thing in each."""

    identity = "weights"

    def __init__(self, before=lambda number: None):
        self.count = 0
        self.before = before

    def predict_batch(self, scans, **options):
        results = []
        for scan in scans:
            self.count += 1
            self.before(self.count)
            try:
                image = read_image(scan)
            except VividMedError as error:
                results.append(error)
                continue
            grounded = GroundedText(TEXT, [Phrase("cyst of the left kidney", 2, 25, mask())])
            results.append(Result(image, "report", "?", grounded))
        return results


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """The files of three studies."""
    datasets = {}
    for number, study in enumerate(STUDIES):
        folder = tmp_path_factory.mktemp("study")
        volume = np.random.default_rng(number).integers(0, 500, SIZE).astype(np.int16)
        fields = {
            "StudyInstanceUID": study,
            "SeriesInstanceUID": f"{study}.1",
            "FrameOfReferenceUID": f"{study}.2",
        }
        write_series(folder, volume, RescaleSlope=1, RescaleIntercept=-200, SliceThickness=2.5, **fields)
        datasets[study] = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
    return datasets


@pytest.fixture
def orthanc(tmp_path, series):
    server = Orthanc(tmp_path).start()
    archive = Pacs(server.url)
    for datasets in series.values():
        archive.store(datasets)
    yield server
    server.kill()


def pacs(server, **options):
    return Pacs(server.url, **{"wait": 0.2, **options})


def run(server, predictor, **options):
    archive = pacs(server)
    return list(process_studies(predictor, STUDIES, source=archive, destination=archive, **options))


def results(server, study):
    """Modality to the instances of the results of a study, found by QIDO."""
    found = {}
    for one in pacs(server).find_series(study):
        if one.modality != "CT":
            found.setdefault(one.modality, []).extend((one.uid, uid) for uid in one.instances)
    return found


def check(server):
    """Each study has one segmentation and one report, whose content is what was predicted."""
    for study in STUDIES:
        found = results(server, study)
        assert {modality: len(uids) for modality, uids in found.items()} == {"SEG": 1, "SR": 1}
        segmentation, report = (
            pacs(server).fetch_instance(study, *found[modality][0]) for modality in ("SEG", "SR")
        )
        voxels = np.zeros(SIZE, dtype=bool)
        for pixels, frame in zip(
            segmentation.pixel_array, segmentation.PerFrameFunctionalGroupsSequence, strict=True
        ):
            z = float(frame.PlanePositionSequence[0].ImagePositionPatient[2]) / 2.5
            voxels[round(z)] = pixels
        np.testing.assert_array_equal(voxels, mask())
        evidence = report.CurrentRequestedProcedureEvidenceSequence[0]
        referenced = {
            item.ReferencedSOPInstanceUID
            for each in evidence.ReferencedSeriesSequence
            for item in each.ReferencedSOPSequence
        }
        assert segmentation.SOPInstanceUID in referenced
        assert report.StudyInstanceUID == segmentation.StudyInstanceUID == study
        assert str(report.PatientName) == "Doe^Jane"


def test_three_studies_go_in_and_their_results_come_out_once(orthanc):
    predictor = Stub()
    first = run(orthanc, predictor)
    assert [(outcome.state, outcome.stored) for outcome in first] == [("done", 2)] * 3
    check(orthanc)
    again = run(orthanc, predictor)
    assert [(outcome.state, outcome.stored) for outcome in again] == [("done before", 0)] * 3
    assert predictor.count == 3
    check(orthanc)
    # Another question is another report.
    other = run(orthanc, predictor, question=Question({"prompt": "Any cyst?"}))
    assert [outcome.state for outcome in other] == ["done"] * 3
    assert {len(results(orthanc, study)["SR"]) for study in STUDIES} == {2}


def kill_at(moment):
    """A predictor, and what to do with the archive's ``store``, that kill this process in the second study."""

    def kill(number):
        if number == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    store = Pacs.store
    stored = []

    def store_and_die(self, datasets):
        stored.append(None)
        if moment == "before storing":
            kill(len(stored))
        store(self, datasets)
        kill(len(stored))

    return (Stub(kill), store) if moment == "while predicting" else (Stub(), store_and_die)


@pytest.mark.parametrize("moment", ["while predicting", "before storing", "after storing"])
def test_a_worker_that_is_killed_does_each_study_once(orthanc, moment):
    child = os.fork()
    if child == 0:
        predictor, Pacs.store = kill_at(moment)
        run(orthanc, predictor)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    for study in STUDIES:
        assert len(results(orthanc, study)) in (0, 2)
    predictor = Stub()
    states = [outcome.state for outcome in run(orthanc, predictor)]
    done = 2 if moment == "after storing" else 1
    assert states == ["done before"] * done + ["done"] * (3 - done)
    check(orthanc)


def test_an_archive_that_is_killed_and_restarted_gets_each_study_once(orthanc):
    def restart(number):
        if number == 2:
            orthanc.kill()
            threading.Timer(0.5, orthanc.start).start()

    archive = pacs(orthanc, attempts=8)
    outcomes = list(process_studies(Stub(restart), STUDIES, source=archive, destination=archive))
    assert [outcome.state for outcome in outcomes] == ["done"] * 3
    check(orthanc)


def test_a_half_stored_study_is_completed(orthanc, monkeypatch):
    store = Pacs.store
    # As an archive that takes the report and loses the segmentation.
    monkeypatch.setattr(Pacs, "store", lambda self, datasets: store(self, datasets[-1:]))
    assert [outcome.state for outcome in run(orthanc, Stub())] == ["failed"] * 3
    monkeypatch.undo()
    assert [outcome.state for outcome in run(orthanc, Stub())] == ["done"] * 3
    check(orthanc)


def test_studies_are_answered_as_they_arrive(orthanc):
    stop, outcomes = threading.Event(), []

    def report(outcome):
        outcomes.append(outcome)
        if len(outcomes) == 3:
            stop.set()

    archive = pacs(orthanc)
    watch(Stub(), source=archive, destination=archive, stop=stop, interval=0.05, report=report)
    assert sorted(outcome.study for outcome in outcomes) == STUDIES
    check(orthanc)


def test_a_study_that_is_not_there_does_not_stop_the_others(orthanc):
    archive = pacs(orthanc)
    outcomes = list(process_studies(Stub(), ["1.2.3.4", STUDIES[0]], source=archive, destination=archive))
    assert [outcome.state for outcome in outcomes] == ["failed", "done"]
    assert "no images found" in outcomes[0].error
    assert "1.2.3.4" not in outcomes[0].error
