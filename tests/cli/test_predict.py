"""``vividmed predict`` and ``vividmed evaluate``, from inputs to files, with a small random model."""

import errno
import json
import shutil
import struct
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image

from tests.fixtures.dicom_files import write_series
from tests.fixtures.paths import REPOSITORY
from vividmed.cli.main import main
from vividmed.files import alone_in
from vividmed.inference.predictor import Predictor

MODEL = str(REPOSITORY / "tests" / "fixtures" / "checkpoints" / "556ac31" / "model")


@pytest.fixture(scope="module")
def loaded():
    return Predictor(MODEL, device="cpu")


@pytest.fixture
def predictor(loaded, monkeypatch):
    """A predictor that every command shares, so that the model is loaded once."""
    monkeypatch.setattr(
        "vividmed.inference.predictor.Predictor", type("Shared", (), {"__new__": lambda *_, **__: loaded})
    )
    return loaded


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 255, (24, 20)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"image{number}.png")
    (folder / "broken.png").write_bytes(b"\x89PNG not really")
    return folder


def predict(images, output, *options):
    arguments = ["predict", str(images), "--model", MODEL, "--output", str(output), "--device", "cpu"]
    return main([*arguments, "--max-new-tokens", "4", *options])


def test_scans_are_predicted_once_and_failures_are_listed(images, tmp_path, capsys):
    output = tmp_path / "out"
    assert predict(images, output, "--formats", "json,png") == 1
    assert "2 scans predicted" in capsys.readouterr().out
    assert {path.name for path in (output / "image0").iterdir()} == {"result.json", "overlay.png"}
    assert "broken.png" in (output / "failures.csv").read_text()
    (images / "broken.png").unlink()
    assert predict(images, output, "--formats", "json") == 0
    assert "0 scans predicted, 2 had a result" in capsys.readouterr().out
    assert not (output / "failures.csv").exists()


def test_a_result_is_of_the_question_and_has_the_formats_asked_for(images, tmp_path, capsys, predictor):
    image, output = images / "image0.png", tmp_path / "out"
    assert predict(image, output, "--formats", "json") == 0
    (output / "image0" / ".overlay.png.1.partial").write_bytes(b"of a killed run")
    assert predict(image, output, "--formats", "json,png") == 0
    assert {path.name for path in (output / "image0").iterdir()} == {"result.json", "overlay.png"}
    assert predict(image, output, "--formats", "png") == 0
    assert "1 had a result" in capsys.readouterr().out
    other = ["--task", "vqa", "--prompt", "What is this?", "--formats", "json"]
    assert predict(image, output, *other) == 2
    error = capsys.readouterr().err
    assert "has the result of another question; use --overwrite" in error
    assert error.count("\n") == 1
    (output / "image0" / "segmentation.dcm").write_bytes(b"of the earlier question")
    assert predict(image, output, *other, "--overwrite") == 0
    assert [path.name for path in (output / "image0").iterdir()] == ["result.json"]


def test_dicom_formats_are_left_out_of_other_scans(images, tmp_path, capsys, predictor):
    image, output = images / "image0.png", tmp_path / "out"
    assert predict(image, output, "--formats", "png,dicom-sr,dicom-seg") == 0
    assert "DICOM formats left out: 1 scan not read from DICOM" in capsys.readouterr().out
    assert {path.name for path in (output / "image0").iterdir()} == {"result.json", "overlay.png"}
    assert predict(image, output, "--formats", "dicom-sr", "--overwrite") == 1
    assert "not read from DICOM" in capsys.readouterr().out
    assert [path.name for path in output.iterdir()] == ["failures.csv"]


def test_texts_written_in_a_batch_are_those_written_one_by_one(images, tmp_path, predictor):
    for number in range(2, 5):
        pixels = np.random.default_rng(number).integers(0, 255, (20 + 9 * number, 30)).astype(np.uint8)
        Image.fromarray(pixels).save(images / f"image{number}.png")
    results = {}
    for size in (1, 3):
        assert predict(images, tmp_path / str(size), "--formats", "json", "--batch-size", str(size)) == 1
        for path in (tmp_path / str(size)).glob("*/result.json"):
            results.setdefault(path.parent.name, []).append(json.loads(path.read_text())["text"])
    assert len(results) == 5
    assert all(single == joint for single, joint in results.values())


def test_targets_are_segmented(images, tmp_path):
    output = tmp_path / "out"
    assert predict(images / "image0.png", output, "--task", "segment", "--targets", "liver,left kidney") == 0
    result = json.loads((output / "image0" / "result.json").read_text())
    assert [phrase["text"] for phrase in result["phrases"]] == ["liver", "left kidney"]


def test_chat_keeps_the_conversation(images, monkeypatch, capsys):
    asked = []
    questions = iter(["What is this?", "And where?", ""])
    monkeypatch.setattr("builtins.input", lambda prompt: next(questions))
    monkeypatch.setattr(
        "vividmed.processing.processing_vividmed.VividMedProcessor.__call__",
        record(asked),
    )
    arguments = ["predict", str(images / "image0.png"), "--model", MODEL, "--chat", "--device", "cpu"]
    assert main([*arguments, "--max-new-tokens", "3"]) == 0
    assert [len(messages) for messages in asked] == [1, 3]


def record(asked):
    from vividmed.processing.processing_vividmed import VividMedProcessor

    original = VividMedProcessor.__call__

    def call(self, *args, conversations=None, **kwargs):
        asked.append(list(conversations))
        return original(self, *args, conversations=conversations, **kwargs)

    return call


def write(name, content):
    """A function that puts a file, or the files of a folder, under a name in a folder and returns its path."""

    def make(folder):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return str(path)

    return make


def folder_of(**files):
    def make(folder):
        (folder / "given").mkdir()
        for name, content in files.items():
            (folder / "given" / name.replace("_", ".")).write_bytes(content)
        return str(folder / "given")

    return make


def nifti(values, zooms=(1.0, 1.0, 1.0)):
    def make(folder):
        image = nib.Nifti1Image(values, np.diag([*zooms, 1.0]))
        image.to_filename(folder / "scan.nii.gz")
        return str(folder / "scan.nii.gz")

    return make


def cut(make, keep):
    def made(folder):
        path = Path(make(folder))
        path.write_bytes(path.read_bytes()[:keep])
        return str(path)

    return made


def mixed_series(folder):
    for number in (1, 2):
        volume = np.zeros((2, 8, 8), dtype=np.int16)
        write_series(folder / f"part{number}", volume, SeriesInstanceUID=f"1.2.{number}")
    both = folder / "both"
    both.mkdir()
    for number, path in enumerate([*(folder / "part1").iterdir(), *(folder / "part2").iterdir()]):
        path.rename(both / f"{number}.dcm")
    return str(both)


def gap(folder):
    write_series(folder / "gap", np.zeros((5, 8, 8), dtype=np.int16), shuffled=False)
    (folder / "gap" / "IM0002").unlink()
    return str(folder / "gap")


def twice(folder):
    write_series(folder / "twice", np.zeros((3, 8, 8), dtype=np.int16), shuffled=False)
    slice_ = pydicom.dcmread(folder / "twice" / "IM0001")
    slice_.SOPInstanceUID = "1.2.3.99"
    slice_.save_as(folder / "twice" / "again.dcm")
    return str(folder / "twice")


def without(*names, **values):
    """A series whose files lack elements or have other values."""

    def make(folder):
        write_series(folder / "series", np.zeros((3, 8, 8), dtype=np.int16))
        for path in (folder / "series").iterdir():
            dataset = pydicom.dcmread(path)
            for name in names:
                delattr(dataset, name)
            for name, value in values.items():
                setattr(dataset, name, value)
            dataset.save_as(path)
        return str(folder / "series")

    return make


def empty_folder(folder):
    (folder / "empty").mkdir()
    return str(folder / "empty")


def header(*changes):
    """A NIfTI file with other bytes at some places of its header."""

    def make(folder):
        image = nib.Nifti1Image(
            np.random.default_rng(0).integers(0, 9, (8, 8, 4)).astype(np.int16), np.eye(4)
        )
        encoded = bytearray(image.to_bytes())
        for position, content in changes:
            encoded[position : position + len(content)] = content
        (folder / "scan.nii").write_bytes(encoded)
        return str(folder / "scan.nii")

    return make


def pixels_claimed(width):
    """A PNG file whose header claims a square image."""
    size = struct.pack(">II", width, width) + b"\x08\0\0\0\0"
    chunks = [
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in ((b"IHDR", size), (b"IDAT", b""), (b"IEND", b""))
    ]
    return write("a.png", b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


VOXELS = np.zeros((4, 8, 8), dtype=np.int16)
INFINITE = struct.pack("<f", np.inf)
BAD_SCANS = {
    "text file": (write("notes.txt2", b"not an image"), "unknown file type"),
    "text named nifti": (write("a.nii.gz", b"not an image"), "a.nii.gz"),
    "text named png": (write("a.png", b"not an image"), "a.png"),
    "text named dicom": (write("a.dcm", b"not an image"), "a.dcm"),
    "empty nifti": (write("a.nii.gz", b""), "empty"),
    "empty png": (write("a.png", b""), "empty"),
    "cut nifti": (cut(nifti(np.random.default_rng(0).normal(size=(16, 16, 16))), 400), "scan.nii.gz"),
    "4D": (nifti(np.zeros((8, 8, 4, 3), dtype=np.int16)), "scan.nii.gz"),
    "no voxels": (nifti(np.zeros((0, 8, 8), dtype=np.int16)), "scan.nii.gz"),
    "complex values": (nifti(VOXELS.astype(np.complex64)), "scan.nii.gz"),
    "mixed series": (mixed_series, "series"),
    "values that are no numbers": (nifti(np.full((8, 8, 4), np.nan, dtype=np.float32)), "NaN"),
    "constant": (nifti(VOXELS.T), "scan.nii.gz"),
    "duplicated slice": (twice, "several slices lie at one position"),
    "no pixels": (without("PixelData"), "contains no image"),
    "no positions": (without("ImagePositionPatient"), "has no position"),
    "claims a huge image": (without(Rows=65535, Columns=65535), "more than the limit"),
    "zip file": (write("series.zip", b"PK\x03\x04"), "unknown file type"),
    "missing slice": (gap, "slice is missing"),
    "infinite place in a NIfTI": (header((280, INFINITE)), "the affine is not"),
    "two places, one infinite": (header((252, struct.pack("<hh", 1, 1)), (280, INFINITE)), "the affine"),
    "NIfTI of 200 axes": (header((40, struct.pack("<h", 200))), "not a readable NIfTI file"),
    "slope beyond numbers": (header((112, struct.pack("<ff", 3e38, 3e38))), "infinite"),
    "slope beyond numbers in DICOM": (without(RescaleSlope="1e300", RescaleIntercept="1e300"), "infinite"),
    "claims a huge 2D image": (pixels_claimed(60_000), "make it smaller"),
}


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize(("make", "message"), BAD_SCANS.values(), ids=BAD_SCANS)
def test_a_scan_that_cannot_be_read_is_listed_in_one_line(tmp_path, capsys, predictor, make, message):
    output = tmp_path / "out"
    assert predict(make(tmp_path), output) == 1
    captured = capsys.readouterr()
    assert not [line for line in captured.err.splitlines() if "Loading weights" not in line]
    printed = captured.out.splitlines()
    (failed,) = (line for line in printed if line.startswith("failed: "))
    assert message in failed
    assert [path.name for path in output.iterdir()] == ["failures.csv"]
    assert len((output / "failures.csv").read_text().splitlines()) == 2


OUT = ["--output", "out"]
DICOMWEB = ["--from-dicomweb", "http://127.0.0.1:9/dicom-web"]
BAD_COMMANDS = {
    "absent file": (["absent.nii.gz", *OUT], "no such file"),
    "one of two is absent": (["{image}", "{image}2", *OUT], "no such file"),
    "glob without match": (["*.mha", *OUT], "no image found"),
    "empty folder": ([empty_folder, *OUT], "no image found"),
    "folder of texts": ([folder_of(a_md=b"text"), *OUT], "no image found"),
    "empty list": ([write("list.csv", b""), *OUT], "no image found"),
    "list of absent files": ([write("list.csv", b"path\nabsent.nii.gz\n"), *OUT], "line 2: no such file"),
    "list that is no text": ([write("list.csv", b"\xff\xfe\x00a"), *OUT], "not a readable list"),
    "list of itself": ([write("list.csv", b"path\nlist.csv\n"), *OUT], "names itself"),
    "device file": (["/dev/null", *OUT], "neither a file nor a folder"),
    "no input": ([*OUT], "there is no input"),
    "no output": (["{image}"], "--output is missing"),
    "output without a name": (["{image}", "--output", ""], "--output: is empty; name a file or folder"),
    "output is a file": (["{image}", "--output", "{image}"], "is a file; name a folder"),
    "vqa without prompt": (["{image}", *OUT, "--task", "vqa"], "--task vqa needs --prompt"),
    "segment without targets": (["{image}", *OUT, "--task", "segment"], "needs --targets"),
    "targets of commas": (["{image}", *OUT, "--task", "segment", "--targets", " , ,"], "needs --targets"),
    "ground without text": (["{image}", *OUT, "--task", "ground"], "needs --text"),
    "absent text": (["{image}", *OUT, "--task", "ground", "--text", "no.txt"], "no.txt"),
    "text that is none": (["{image}", *OUT, "--task", "ground", "--text", "{image}"], "cannot be read"),
    "text that names nothing": (
        ["{image}", *OUT, "--task", "ground", "--text", write("a.txt", b"Nothing to see.")],
        "names nothing",
    ),
    "unknown task": (["{image}", *OUT, "--task", "translate"], "unknown value 'translate'"),
    "unknown format": (["{image}", *OUT, "--formats", "jpg"], "format 'jpg' is unknown"),
    "formats of commas": (["{image}", *OUT, "--formats", " ,"], "names no format"),
    "unknown dtype": (["{image}", *OUT, "--dtype", "int8"], "unknown value 'int8'"),
    "unknown argument": (["{image}", *OUT, "--fromats", "png"], "did you mean --formats"),
    "batch of none": (["{image}", *OUT, "--batch-size", "0"], "not a whole number above 0"),
    "tokens that are no number": (["{image}", *OUT, "--max-new-tokens", "many"], "not a whole number"),
    "chat about two": (["{image}", "{image}", "{images}", "--chat"], "about one scan"),
    "chat with an output": (["{image}", "--chat", *OUT], "--chat does not use --output"),
    "targets of another task": (["{image}", *OUT, "--targets", "liver"], "does not use targets"),
    "study without archive": (["{image}", *OUT, "--study", "1.2"], "--study needs --from-dicomweb"),
    "target archive only": (["{image}", "--to-dicomweb", "http://x"], "--to-dicomweb needs --from-dicomweb"),
    "archive and input": (["{image}", *DICOMWEB, "--study", "1.2", *OUT], "takes no INPUT"),
    "archive without study": ([*DICOMWEB, *OUT], "needs --study"),
    "study that is no uid": ([*DICOMWEB, *OUT, "--study", "Doe^Jane"], "take UIDs"),
    "archive that is no url": (["--from-dicomweb", "pacs", "--study", "1.2", *OUT], "begins with http"),
    "archive with a bad port": (
        ["--from-dicomweb", "http://a:b/", "--study", "1.2", *OUT],
        "begins with http",
    ),
}


@pytest.mark.parametrize(("arguments", "message"), BAD_COMMANDS.values(), ids=BAD_COMMANDS)
def test_wrong_input_is_one_line(images, tmp_path, monkeypatch, capsys, predictor, arguments, message):
    monkeypatch.chdir(tmp_path)
    places = {"image": images / "image0.png", "images": images}
    words = [word(tmp_path) if callable(word) else word.format(**places) for word in arguments]
    assert main(["predict", "--model", MODEL, "--max-new-tokens", "2", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("device", ["abacus", "cuda:99", "-1", "{}", "meta"])
@pytest.mark.parametrize(
    "words",
    [["predict", "image0.png", "--model", MODEL], ["evaluate", "predict", MODEL, "--task", "vqa"]],
    ids=["predict", "evaluate predict"],
)
def test_a_device_that_cannot_be_used_is_one_line(words, device, images, monkeypatch, capsys):
    monkeypatch.chdir(images)
    assert main([*words, f"--device={device}", *OUT]) == 2
    error = capsys.readouterr().err
    assert f"device {device}: cannot be used" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "options",
    [
        ["--prompt", "word " * 4000],
        ["--task", "vqa", "--prompt", "word " * 4000],
        ["--task", "ground", "--text", write("long.txt", b"The <p>liver</p> is normal. " * 1000)],
        ["--task", "segment", "--targets", ",".join(["liver"] * 1000)],
    ],
    ids=["report", "vqa", "ground", "segment"],
)
def test_a_text_that_is_longer_than_the_model_reads_is_refused(images, tmp_path, capsys, predictor, options):
    words = [word(tmp_path) if callable(word) else word for word in options]
    assert predict(images / "image0.png", tmp_path / "out", *words) == 1
    (failed,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("failed: "))
    assert "the model reads at most 2,048; shorten it" in failed


def test_the_result_of_another_patient_is_not_taken_for_that_of_a_scan_of_the_same_name(
    images, tmp_path, capsys, predictor
):
    first, second = tmp_path / "a" / "scan.png", tmp_path / "b" / "scan.png"
    for number, scan in enumerate((first, second)):
        scan.parent.mkdir()
        shutil.copy(images / f"image{number}.png", scan)
    assert predict(first, tmp_path / "out", "--formats", "json") == 0
    result = (tmp_path / "out" / "scan" / "result.json").read_text()
    assert predict(second, tmp_path / "out", "--formats", "json") == 2
    assert "has the result of another scan; use --overwrite" in capsys.readouterr().err
    assert (tmp_path / "out" / "scan" / "result.json").read_text() == result
    shutil.copy(images / "image0.png", second)
    assert predict(second, tmp_path / "out", "--formats", "json") == 0
    assert "1 had a result" in capsys.readouterr().out


def test_two_runs_do_not_share_an_output(images, tmp_path, capsys, predictor):
    output = tmp_path / "out"
    with alone_in(output):
        assert predict(images / "image0.png", output) == 2
    assert "another run works on it" in capsys.readouterr().err
    assert not output.exists()
    assert predict(images / "image0.png", output, "--formats", "json") == 0


@pytest.mark.parametrize(
    ("model", "message"),
    [("absent", "absent"), (empty_folder, "empty"), (write("model/config.json", b"{"), "cannot be loaded")],
    ids=["absent", "empty folder", "damaged"],
)
def test_a_model_that_cannot_be_loaded_is_one_line(images, tmp_path, monkeypatch, capsys, model, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    name = model if isinstance(model, str) else model(tmp_path).removesuffix("/config.json")
    assert main(["predict", str(images / "image0.png"), "--model", name, *OUT]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_model_without_segmenters_says_that_it_cannot_segment(
    images, tmp_path, monkeypatch, capsys, predictor
):
    monkeypatch.setattr(type(predictor), "can_ground", False)
    assert predict(images / "image0.png", tmp_path / "out", "--task", "segment", "--targets", "liver") == 2
    assert "needs a model with segmenters" in capsys.readouterr().err


def test_a_full_disk_stops_the_run_in_one_line(images, tmp_path, monkeypatch, capsys, predictor):
    def full(self, *args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("vividmed.files.os.fsync", full)
    assert predict(images / "image0.png", tmp_path / "out", "--formats", "json") == 2
    error = capsys.readouterr().err
    assert "No space left on device" in error
    assert error.count("\n") == 1
    assert not list((tmp_path / "out").rglob("*.json"))


def test_an_archive_that_does_not_answer_fails_its_study_in_one_line(
    tmp_path, monkeypatch, capsys, predictor
):
    pytest.importorskip("dicomweb_client")
    monkeypatch.setattr("vividmed.pacs.client.time.sleep", lambda seconds: None)
    arguments = ["predict", "--model", MODEL, *DICOMWEB, "--study", "1.2.3", "--output", str(tmp_path)]
    assert main(arguments) == 1
    (failed,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("failed: "))
    assert "check that the archive runs" in failed
    assert "1.2.3" not in failed


@pytest.mark.slow
def test_a_split_is_predicted_and_scored(tmp_path, monkeypatch, capsys):
    output = tmp_path / "predictions"
    arguments = ["evaluate", "predict", MODEL, "--task", "vqa", "--output", str(output), "--max_rows", "3"]
    protocol = tmp_path / "short.yaml"
    protocol.write_text(
        "description: d\nreport_prompt: p\nmax_new_tokens: 3\nkeep_markers: false\ndrop_last_image: false\n"
    )
    assert main([*arguments, "--protocol", str(protocol), "--device", "cpu"]) == 0
    assert main([*arguments, "--protocol", str(protocol), "--device", "cpu"]) == 0
    assert "0 items predicted, 3 were there" in capsys.readouterr().out
    assert main(["evaluate", "score", str(output), "--metrics", "text,vqa", "--samples", "20"]) == 0
    assert "| accuracy |" in capsys.readouterr().out
    assert {"scores.md", "scores.csv", "scores.json"} <= {path.name for path in output.iterdir()}
    assert main(["evaluate", "score", str(output), "--compare", str(output), "--samples", "20"]) == 0
    assert main([*arguments, "--split", "train", "--device", "cpu"]) == 2
    assert "predictions of another run" in capsys.readouterr().err
    assert main(["evaluate", "score", str(output), "--metrics", "nothing"]) == 2
