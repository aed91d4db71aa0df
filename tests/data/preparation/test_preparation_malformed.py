"""Malformed inputs of many kinds: each is a failure of its own case with one line that names the file."""

import gzip
import shutil
import stat
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.fixtures.miniatures import Phantom, picture, truncate, write_picture, write_radiograph, write_table
from tests.fixtures.preparation import Toy
from vividmed.data.adapters import get_adapter
from vividmed.data.adapters.base import Case, ImageFile, LabelMap
from vividmed.data.preparation.prepare import prepare_dataset
from vividmed.errors import VividMedError

PHANTOM = Phantom(values=(1,), size=(16, 14, 8))
SOUND_EVERY = 7
"""There is one sound case per that many spoilt ones."""

Spoil = Callable[[Path, np.random.Generator], None]


def _nifti(path: Path) -> bytearray:
    return bytearray(gzip.decompress(path.read_bytes()))


def _patch(offset: int, code: str, *values: float) -> Spoil:
    """Overwrite a header field."""

    def spoil(path: Path, _: np.random.Generator) -> None:
        content = _nifti(path)
        struct.pack_into("<" + code, content, offset, *values)
        path.write_bytes(gzip.compress(bytes(content)))

    return spoil


def _voxels(change: Callable[[np.ndarray], np.ndarray], affine: np.ndarray | None = None) -> Spoil:
    """Write other voxels."""

    def spoil(path: Path, _: np.random.Generator) -> None:
        image = nib.load(path)
        array = change(np.asarray(image.dataobj))
        nib.save(nib.Nifti1Image(array, image.affine if affine is None else affine), path)

    return spoil


def _cut(path: Path, generator: np.random.Generator) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(generator.integers(1, len(content) - 9))])


def _cut_inside(path: Path, generator: np.random.Generator) -> None:
    content = bytes(_nifti(path))
    path.write_bytes(gzip.compress(content[: int(generator.integers(4, len(content) - 4))]))


def _flip_bits(path: Path, generator: np.random.Generator) -> None:
    content = bytearray(path.read_bytes())
    for place in generator.integers(20, len(content) - 8, 12):
        content[place] ^= 0xFF
    path.write_bytes(content)


def _replace(content: bytes) -> Spoil:
    return lambda path, _: path.write_bytes(content) and None


def _rgb(array: np.ndarray) -> np.ndarray:
    colours = np.zeros(array.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    colours["R"], colours["G"] = array != 0, 200
    return colours


BOTH: dict[str, Spoil] = {
    "cut": _cut,
    "cut inside": _cut_inside,
    "bits flipped": _flip_bits,
    "empty": _replace(b""),
    "a web page": _replace(b"<html><body>404 Not Found</body></html>"),
    "negative size": _patch(42, "3h", -5, 4, 4),
    "unknown type": _patch(70, "h", 999),
    "no magic": _patch(344, "4s", b"abcd"),
    "four dimensions": _voxels(lambda a: np.stack([a, a], -1)),
    "NaN affine": _patch(280, "12f", *[float("nan")] * 12),
    "flat affine": _patch(280, "12f", *[0.0] * 12),
    "colours": _voxels(_rgb),
}
IMAGE: dict[str, Spoil] = {
    "NaN voxels": _voxels(lambda a: np.where(a > 0, np.nan, a).astype(np.float32)),
    "infinite voxels": _voxels(lambda a: np.where(a > 0, np.inf, a).astype(np.float32)),
    "constant": _voxels(lambda a: np.full_like(a, 7)),
    "complex": _voxels(lambda a: a.astype(np.complex64)),
}
LABEL: dict[str, Spoil] = {
    "fractions": _voxels(lambda a: a.astype(np.float32) / 3),
    "negative": _voxels(lambda a: -a),
    "huge": _voxels(lambda a: a.astype(np.int32) * 100_000),
    "another size": _voxels(lambda a: np.pad(a, ((0, 5), (0, 0), (0, 0)), constant_values=1)),
    "another place": _voxels(lambda a: a, np.diag([-2.0, -2.0, 5.0, 1.0])),
    "another spacing": _voxels(lambda a: a, np.diag([-1.0, -1.0, 1.0, 1.0])),
    "missing": lambda path, _: path.unlink(),
}


class Spoilt(Toy):
    def cases(self, origin: Path) -> Iterator[Case]:
        for image in sorted(origin.glob("*.image.nii.gz")):
            label = image.with_name(image.name.replace(".image.", ".label."))
            yield Case(
                id=image.name.partition(".")[0],
                patient=image.name,
                images=(ImageFile(path=image, modality="CT"),),
                annotations=(LabelMap(label, {"liver": 1}),),
            )


def _plan() -> list[tuple[str, str, Spoil]]:
    """(what, image or label, how) of 56 cases; random damage comes several times."""
    kinds = [(f"image, {what}", "image", spoil) for what, spoil in (BOTH | IMAGE).items()]
    kinds += [(f"label, {what}", "label", spoil) for what, spoil in (BOTH | LABEL).items()]
    random_ones = [kind for kind in kinds if kind[2] in (_cut, _cut_inside, _flip_bits)]
    return kinds + [random_ones[i % len(random_ones)] for i in range(56 - len(kinds))]


def test_spoilt_volumes_fail_without_the_others_and_each_reason_names_the_file(tmp_path: Path):
    origin = tmp_path / "origin"
    origin.mkdir()
    whole = {"image": PHANTOM.write_image(tmp_path / "image.nii.gz")}
    whole["label"] = PHANTOM.write_labels(tmp_path / "label.nii.gz")

    def add(key: str) -> dict[str, Path]:
        return {
            part: Path(shutil.copy(path, origin / f"{key}.{part}.nii.gz")) for part, path in whole.items()
        }

    generator = np.random.default_rng(0)
    sound, spoilt = [], {}
    for number, (what, part, spoil) in enumerate(_plan()):
        key = f"case-{number:03d}"
        spoil(add(key)[part], generator)
        spoilt[key] = (what, part)
        if number % SOUND_EVERY == 0:
            sound.append(f"sound-{number:03d}")
            add(sound[-1])
    result = prepare_dataset(Spoilt(), origin, tmp_path / "out")
    survivors = {key: what for key, (what, _) in spoilt.items() if key not in result.failed}
    assert survivors == {}
    assert sum(result.rows.values()) == len(sound) == 8
    for key, reason in result.failed.items():
        what, part = spoilt[key]
        assert f"{key}.{part}.nii.gz" in reason, f"{what}: {reason}"
        assert "\n" not in reason
        assert not reason.split(":")[0].endswith(("Error", "Exception")), f"{what}: {reason}"


def _png(path: Path) -> Path:
    return write_picture(path.with_suffix(".png"), picture())


def _dicom(path: Path) -> Path:
    return write_radiograph(path.with_suffix(".dcm"), picture().astype(np.uint16))


PICTURES: dict[str, Callable[[Path], Path]] = {
    "cut png": lambda path: truncate(_png(path)),
    "empty png": lambda path: _emptied(_png(path)),
    "black png": lambda path: write_picture(path.with_suffix(".png"), np.zeros((8, 8), np.uint8)),
    "text named png": lambda path: _written(path.with_suffix(".png"), b"no picture"),
    "cut jpeg header": lambda path: _written(path.with_suffix(".jpg"), b"\xff\xd8\xff\xe0"),
    "cut dicom": lambda path: truncate(_dicom(path)),
    "empty dicom": lambda path: _emptied(_dicom(path)),
    "text named dicom": lambda path: _written(path.with_suffix(".dcm"), b"no DICOM file"),
    "dicom without pixels": lambda path: write_radiograph(
        path.with_suffix(".dcm"), picture().astype(np.uint16), PixelData=b""
    ),
    "dicom of other size": lambda path: write_radiograph(
        path.with_suffix(".dcm"), picture().astype(np.uint16), Rows=4000
    ),
    "folder without dicom": lambda path: _folder(path),
    "missing": lambda path: path.with_suffix(".png"),
    "unknown ending": lambda path: _written(path.with_suffix(".xyz"), b"data"),
    "cut nrrd": lambda path: truncate(PHANTOM.write_image(path.with_suffix(".nrrd"))),
    "text named mha": lambda path: _written(path.with_suffix(".mha"), b"no volume"),
}


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _emptied(path: Path) -> Path:
    return _written(path, b"")


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_spoilt_files_of_other_formats_fail_without_the_others(tmp_path: Path):
    origin = tmp_path / "origin"
    origin.mkdir()
    paths = {name: make(origin / name.replace(" ", "-")) for name, make in PICTURES.items()}

    class Pictures(Toy):
        def cases(self, origin: Path) -> Iterator[Case]:
            for name, path in paths.items():
                yield Case(
                    id=name, patient=name, images=(ImageFile(path=path, modality="X-ray"),), absent=("liver",)
                )
            sound = ImageFile(path=_png(origin / "sound"), modality="X-ray")
            yield Case(id="sound", patient="sound", images=(sound,), absent=("liver",))

    result = prepare_dataset(Pictures(), origin, tmp_path / "out")
    assert set(result.failed) == set(paths)
    assert sum(result.rows.values()) == 1
    for name, reason in result.failed.items():
        assert paths[name].name in reason
        assert not reason.split(":")[0].endswith(("Error", "Exception")), f"{name}: {reason}"


def _zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path.with_suffix(".zip"), "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path.with_suffix(".zip")


def _link(path: Path, _: bytes) -> Path:
    info = zipfile.ZipInfo("ct.nii.gz")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path.with_suffix(".zip"), "w") as archive:
        archive.writestr(info, "/etc/passwd")
    return path.with_suffix(".zip")


def _encrypted(path: Path, image: bytes) -> Path:
    """The standard library writes no encrypted archives; the flag of the entry is what is read."""
    content = bytearray(_zip(path, {"ct.nii.gz": image}).read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    return _written(path.with_suffix(".zip"), bytes(content))


def _huge(path: Path, image: bytes) -> Path:
    """An entry that claims to unpack to 200 GB."""
    with zipfile.ZipFile(path.with_suffix(".zip"), "w") as archive:
        archive.writestr("ct.nii.gz", image)
        archive.filelist[0].file_size = 200 * 10**9
    return path.with_suffix(".zip")


def _corrupt(path: Path, image: bytes) -> Path:
    content = bytearray(_zip(path, {"ct.nii.gz": image}).read_bytes())
    content[len(content) // 2] ^= 0xFF
    return _written(path.with_suffix(".zip"), bytes(content))


ZIPS: dict[str, tuple[Callable[[Path, bytes], Path], str]] = {
    "parent": (lambda path, image: _zip(path, {"../evil.nii.gz": image}), "leads out of its folder"),
    "parent inside": (
        lambda path, image: _zip(path, {"a/../../evil.nii.gz": image}),
        "leads out of its folder",
    ),
    "parent of Windows": (
        lambda path, image: _zip(path, {"..\\evil.nii.gz": image}),
        "leads out of its folder",
    ),
    "absolute": (
        lambda path, image: _zip(path, {str(path.parent / "evil.nii.gz"): image}),
        "leads out of its folder",
    ),
    "drive": (lambda path, image: _zip(path, {"C:/evil.nii.gz": image}), "leads out of its folder"),
    "parent besides": (
        lambda path, image: _zip(path, {"ct.nii.gz": image, "../evil.txt": b""}),
        "leads out of its folder",
    ),
    "link": (_link, "the link 'ct.nii.gz'"),
    "encrypted": (_encrypted, "encrypted"),
    "huge": (_huge, "unpack to 200.0 GB"),
    "corrupt": (_corrupt, "not a readable archive"),
    "cut": (lambda path, image: truncate(_zip(path, {"ct.nii.gz": image})), "not a readable archive"),
    "no archive": (lambda path, _: _written(path.with_suffix(".zip"), b"<html>"), "not a readable archive"),
    "nothing": (lambda path, _: _zip(path, {}), "contains 0 images"),
    "text": (lambda path, _: _zip(path, {"readme.txt": b"text"}), "contains 0 images"),
    "two images": (
        lambda path, image: _zip(path, {"a.nii.gz": image, "b.nii.gz": image}),
        "contains 2 images",
    ),
    "cut image": (
        lambda path, image: _zip(path, {"ct.nii.gz": image[:300]}),
        "ct.nii.gz: not a readable NIfTI",
    ),
}


def test_spoilt_archives_fail_without_the_others_and_write_nothing_outside(tmp_path: Path):
    origin = tmp_path / "some/where/origin"
    origin.mkdir(parents=True)
    image = PHANTOM.write_image(tmp_path / "ct.nii.gz").read_bytes()
    paths = {name: make(origin / name.replace(" ", "-"), image) for name, (make, _) in ZIPS.items()}
    paths["sound"] = _zip(origin / "sound", {"study/ct.nii.gz": image, "__MACOSX/study/._ct.nii.gz": b"x"})

    class Zips(Toy):
        def cases(self, origin: Path) -> Iterator[Case]:
            for name, path in paths.items():
                yield Case(
                    id=name, patient=name, images=(ImageFile(path=path, modality="CT"),), absent=("liver",)
                )

    result = prepare_dataset(Zips(), origin, tmp_path / "out")
    assert sum(result.rows.values()) == 1
    assert set(result.failed) == set(ZIPS)
    for name, reason in result.failed.items():
        assert paths[name].name in reason
        assert ZIPS[name][1] in reason
        assert not reason.split(":")[0].endswith(("Error", "Exception")), f"{name}: {reason}"
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: write_table(path, [{"id": 1, "Patient's Sex": "M"}]), "column 'amos_id' is missing"),
        (lambda path: _written(path, "amos_id,Patient's Sex\n1,männlich\n".encode("latin-1")), "UTF-8"),
        (lambda path: _written(path, b""), "the table is empty"),
        (
            lambda path: write_table(path, [{"amos_id": 1, "Patient's Sex": s} for s in "MF"]),
            "already has another",
        ),
        (lambda path: path.unlink(), "labeled_data_meta"),
        (lambda path: path.rename(path.with_suffix(".zip")), "unpack labeled_data_meta.zip in place"),
    ],
    ids=["column missing", "not UTF-8", "empty", "duplicate keys", "missing", "packed"],
)
def test_a_spoilt_table_ends_the_run_with_one_line(
    tmp_path: Path, spoil: Callable[[Path], None], message: str
):
    origin = tmp_path / "origin"
    for part in ("Tr", "Va"):
        PHANTOM.write_labels(origin / f"amos22/labels{part}/amos_0001.nii.gz")
    table = write_table(origin / "labeled_data_meta.csv", [{"amos_id": 1, "Patient's Sex": "M"}])
    spoil(table)
    with pytest.raises(VividMedError, match=message) as caught:
        prepare_dataset(get_adapter("amos22"), origin, tmp_path / "out")
    assert "\n" not in str(caught.value)
