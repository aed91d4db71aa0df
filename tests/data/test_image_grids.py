"""The column of image grids: start of training without images, wrong columns noticed, data sets without it."""

import copy
import gzip
from io import BytesIO
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from datasets import Dataset
from PIL import Image

from tests.data.sampling.test_lengths import PLANES, nifti, volume_row
from tests.fixtures.training import MAX_LENGTH, make_rows, small_processor, small_trainer
from vividmed.data import image_grids
from vividmed.data.batches.collator import VividMedCollator
from vividmed.data.batches.examples import read_images
from vividmed.data.image_grids import check_grids, with_grids
from vividmed.data.sampling.lengths import measure_lengths
from vividmed.data.schema import prepared_schema, validate_row
from vividmed.errors import VividMedError
from vividmed.training.runs.exact_resume import hash_rows
from vividmed.training.split_overlap import find_overlap


def encoded_rows(numbers=range(8)):
    return make_rows(numbers).with_format("arrow")[:].to_pylist()


def prepared_rows(numbers=range(8)) -> Dataset:
    rows = [with_grids(row) for row in encoded_rows(numbers)]
    return Dataset.from_list(rows, features=prepared_schema("vision_language"))


def photograph(orientation: int) -> bytes:
    buffer = BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (40, 20)).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def volume_in(unit: str) -> bytes:
    image = nib.Nifti1Image(np.zeros((4, 5, 6), np.uint8), np.diag([-2.0, 3.0, 4.0, 1.0]))
    image.header.set_xyzt_units(unit)
    return image.to_bytes()


@pytest.fixture
def image_reads(monkeypatch):
    """Counts everything that looks into an image, its header included."""
    reads = SimpleNamespace(count=0)

    def counted(function):
        def call(*args, **kwargs):
            reads.count += 1
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(Image, "open", counted(Image.open))
    monkeypatch.setattr(image_grids, "_prefix", counted(image_grids._prefix))
    for header in (nib.Nifti1Header, nib.Nifti2Header):
        monkeypatch.setattr(header, "from_fileobj", counted(header.from_fileobj))
    return reads


@pytest.mark.parametrize("kind", ["images", "volumes"])
@pytest.mark.parametrize(
    "content",
    [
        *(nifti(affine) for affine in PLANES.values()),
        nifti(PLANES["sagittal"], second=True),
        gzip.compress(nifti(PLANES["coronal"])),
        volume_in("meter"),
        volume_in("micron"),
        photograph(1),
        photograph(6),
    ],
)
def test_the_grid_of_a_header_is_that_of_the_image_as_read(content, kind):
    row = volume_row(None, images=[], volumes=[]) | {kind: [{"bytes": content, "path": None}]}
    check_grids(with_grids(row)["grids"], read_images(row))


def test_training_starts_without_reading_an_image(image_reads, tmp_path):
    rows, processor = prepared_rows(), small_processor()
    expected = measure_lengths(make_rows(range(8)), processor)
    assert image_reads.count >= len(rows)
    image_reads.count = 0
    assert measure_lengths(rows, processor) == expected
    trainer = small_trainer(tmp_path, rows=rows)
    assert trainer._get_train_sampler().lengths.tolist() == expected
    assert image_reads.count == 0


def test_rows_without_grids_are_measured_from_their_images(image_reads):
    rows, processor = [with_grids(row) for row in encoded_rows()], small_processor()
    for row in rows[::2]:
        row["grids"] = None
    mixed = Dataset.from_list(rows, features=prepared_schema("vision_language"))
    image_reads.count = 0
    lengths = measure_lengths(mixed, processor)
    assert 0 < image_reads.count < 3 * len(rows)
    assert lengths == measure_lengths(make_rows(range(8)), processor)


@pytest.mark.parametrize(
    "change",
    [
        lambda grids: grids[0].update(size=[1, 33, 32]),
        lambda grids: grids[0].update(spacing=[1.0, 1.0, 2.0]),
        lambda grids: grids[0].update(directions="SPL"),
        lambda grids: grids.clear(),
        lambda grids: grids.append(grids[0]),
    ],
)
@pytest.mark.parametrize("number", [0, 3])
def test_a_wrong_grid_is_one_line_that_names_the_row(change, number):
    row = copy.deepcopy(with_grids(encoded_rows([number])[0]))
    collator = VividMedCollator(small_processor(), max_length=MAX_LENGTH)
    collator([row])
    change(row["grids"])
    with pytest.raises(VividMedError, match=rf"row row-{number}: .*field 'grids'.*prepare") as caught:
        collator([row])
    assert "\n" not in str(caught.value)


def test_a_decoded_row_is_validated_against_its_grid():
    row = {**make_rows([0])[0], "grids": with_grids(encoded_rows([0])[0])["grids"]}
    validate_row("vision_language", row)
    for grids in ([], [{**row["grids"][0], "size": [1, 9, 9]}]):
        with pytest.raises(VividMedError, match="row row-0: field 'grids'"):
            validate_row("vision_language", {**row, "grids": grids})


def test_an_image_that_cannot_be_read_leaves_its_grids_null():
    row = volume_row(b"nothing")
    assert with_grids(row)["grids"] is None


def test_adding_the_column_does_not_change_what_a_run_resumes_from():
    assert hash_rows(prepared_rows()) == hash_rows(make_rows(range(8)))


def test_overlapping_splits_are_found_without_reading_different_images_whole(monkeypatch):
    hashed = []
    monkeypatch.setattr(
        "vividmed.training.split_overlap._hash", lambda image: hashed.append(1) or image["bytes"].as_py()
    )
    assert find_overlap(prepared_rows([0, 1]), prepared_rows([2, 4])).shared_images == 0
    assert not hashed
    assert find_overlap(prepared_rows([0, 3]), prepared_rows([3, 4, 4])).images == 2
    assert find_overlap(prepared_rows([0, 3]), prepared_rows([3, 4])).shared_images == 1


def test_grids_that_are_all_null_are_measured_from_the_images():
    row = volume_row(nifti(PLANES["coronal"]))
    rows, processor = Dataset.from_list([row]), small_processor()
    assert measure_lengths(rows.add_column("grids", [None]), processor) == measure_lengths(rows, processor)
