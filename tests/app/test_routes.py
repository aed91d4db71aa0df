"""Scans that people open: what the page gets, and that nothing is kept."""

import gzip
import io
import re
import zipfile
from pathlib import Path

import httpx2
import nibabel as nib
import numpy as np
import pydicom
import pytest

from tests.fixtures.dicom_files import write_series
from tests.fixtures.servers import nifti, png, zipped
from vividmed.app import routes
from vividmed.app.sessions import Sessions
from vividmed.app.space import write_space
from vividmed.cli.main import main
from vividmed.errors import VividMedError


@pytest.fixture(scope="module")
def http(page):
    with httpx2.Client(base_url=page, timeout=60) as client:
        yield client


def open_scan(http, *files: bytes, **fields):
    return http.post("/page/scans", files=[("file", file) for file in files], data=fields)


def report(http, key, **options):
    content = [
        {"type": "image_url", "image_url": {"url": f"session:{key}"}},
        {"type": "text", "text": "Report?"},
    ]
    body = {"model": "tiny", "max_tokens": 2, "messages": [{"role": "user", "content": content}]}
    options = {"grounding": True, "masks": "packed"} | options
    return http.post("/v1/chat/completions", json=body | {"vividmed": options})


def series(folder: Path) -> bytes:
    volume = np.random.default_rng(0).integers(0, 500, (4, 24, 24)).astype(np.int16)
    study = {"StudyInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.2.4"}
    write_series(folder, volume, RescaleSlope=1, RescaleIntercept=-200, SliceThickness=2.5, **study)
    return zipped({path.name: path.read_bytes() for path in folder.iterdir()})


def test_viewer_gets_the_voxels_and_grid_of_the_scan(http):
    opened = open_scan(http, nifti()).json()
    assert opened["is_volume"]
    assert opened["presets"]["lung"] == [-600, 1500], "values below -500 are Hounsfield units"
    image, overlay = (
        nib.Nifti1Image.from_bytes(gzip.decompress(http.get(f"/page/scans/{opened['id']}/{name}").content))
        for name in ("image.nii.gz", "overlay.nii.gz")
    )
    original = nib.Nifti1Image.from_bytes(nifti())
    assert np.array_equal(image.get_fdata(), original.get_fdata())
    assert np.allclose(image.affine, original.affine)
    assert overlay.shape == original.shape
    assert not overlay.get_fdata().any()


def test_last_result_downloads(http, tmp_path):
    key = open_scan(http, series(tmp_path / "series")).json()["id"]
    assert http.get(f"/page/scans/{key}/files/json").status_code == 404
    assert report(http, key).json()["vividmed"]["phrases"][0]["slices"]
    contents = {}
    for name in ("json", "nifti", "dicom-seg"):
        answer = http.get(f"/page/scans/{key}/files/{name}")
        assert answer.status_code == 200, (name, answer.text)
        contents[name] = answer.content
    assert pydicom.dcmread(io.BytesIO(contents["dicom-seg"])).Modality == "SEG"
    assert b"ball" in contents["json"]
    assert "mask_01.nii.gz" in str(zipfile.ZipFile(io.BytesIO(contents["nifti"])).namelist())
    segmented = http.post("/v1/segment", json={"image": f"session:{key}", "targets": ["liver"]})
    assert segmented.json()["phrases"][0]["text"] == "liver"
    assert b"liver" in http.get(f"/page/scans/{key}/files/json").content


@pytest.mark.parametrize("sample", ["noise", "ball", "CT slice (pydicom)", "Head MR volume (nibabel)"])
def test_samples_open(http, sample):
    assert sample in http.get("/page/about").json()["samples"]
    opened = open_scan(http, sample=sample).json()
    assert opened["is_volume"] == (sample in ("ball", "Head MR volume (nibabel)"))


def test_nothing_is_kept_when_the_tab_is_closed(http, page_app):
    key = open_scan(http, png()).json()["id"]
    assert report(http, key).status_code == 200
    http.delete(f"/page/scans/{key}")
    assert report(http, key).status_code == 404
    assert http.get(f"/page/scans/{key}/image.nii.gz").status_code == 404
    for _ in range(5):
        open_scan(http, png())
    assert len(list(page_app.state.service.root.iterdir())) == 3, "older scans make room"


def test_idle_scans_are_removed(tmp_path):
    sessions = Sessions(idle=-1)
    (tmp_path / "scan").mkdir()
    sessions.open(None, tmp_path / "scan")
    sessions.remove_idle()
    sessions.close_all()
    assert len(sessions) == 0
    assert not (tmp_path / "scan").exists()


@pytest.mark.parametrize(
    ("files", "fields", "status"),
    [
        ([b"text"], {}, 400),
        ([], {"sample": "none"}, 404),
        ([], {"other": "x"}, 400),
        ([png(), png()], {}, 400),
    ],
)
def test_what_is_not_a_scan_is_one_error(http, page_app, files, fields, status):
    before = len(list(page_app.state.service.root.iterdir()))
    answer = open_scan(http, *files, **fields)
    assert answer.status_code == status
    assert "\n" not in answer.json()["error"]["message"]
    assert len(list(page_app.state.service.root.iterdir())) == before


def test_page_refers_to_no_other_server(http):
    page = http.get("/")
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "Research use only" in page.text
    own = Path(routes.__file__).with_name("static")
    for path in own.iterdir():
        if path.is_file():
            assert not re.search(r"https?://|//[a-z]+\.", path.read_text()), path.name
    checksum = re.search(r"sha256: (\w+)", (own / "niivue" / "README.md").read_text())
    import hashlib

    assert checksum
    assert hashlib.sha256((own / "niivue" / "niivue.umd.js").read_bytes()).hexdigest() == checksum[1]
    assert "BSD 2-Clause" in (own / "niivue" / "LICENSE").read_text()


def test_space_names_its_model_and_is_not_written_over_another_folder(tmp_path, capsys):
    assert main(["app", "--model", "owner/name", "--space", str(tmp_path / "space")]) == 0
    assert "sdk: docker" in (tmp_path / "space" / "README.md").read_text()
    assert '"owner/name"' in (tmp_path / "space" / "Dockerfile").read_text()
    for folder, model in (("space", "owner/name"), ("other", "outputs"), ("other", 'a/b"; x')):
        with pytest.raises(VividMedError):
            write_space(tmp_path / folder, model=model)
    assert not (tmp_path / "other").exists()
