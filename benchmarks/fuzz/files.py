"""Image files: 2D images, arrays, DICOM files and series, NIfTI volumes."""

import gzip
import io
from functools import cache
from pathlib import Path
from random import Random

import nibabel as nib
import numpy as np
import pydicom
import torch
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from benchmarks.fuzz.mutation import damage_bytes
from vividmed.processing.image_processing_vividmed import VividMedImageProcessor
from vividmed.processing.reading import read_encoded, read_image

PROCESSOR = VividMedImageProcessor(patch_size=(4, 16, 16), max_image_tokens=36)
CT_PROCESSOR = VividMedImageProcessor(patch_size=(4, 16, 16), max_image_tokens=36, window=(40, 400))


class Images:
    """Damaged 2D image files, and arrays of any shape and type."""

    name = "images"
    share = 20

    def try_one(self, rng: Random, folder: Path) -> None:
        """Damage a 2D image, or draw an array."""
        if rng.random() < 0.2:
            PROCESSOR.prepare(_random_array(rng))
            return
        suffix, content = rng.choice(_images())
        content = damage_bytes(content, rng, header=64)
        if rng.random() < 0.3:
            PROCESSOR.prepare(read_encoded(content, "row"))
            return
        path = folder / f"image{suffix}"
        path.write_bytes(content)
        PROCESSOR.prepare(path)


class Nifti:
    """NIfTI volumes with damaged headers, voxels or compression."""

    name = "nifti"
    share = 20

    def try_one(self, rng: Random, folder: Path) -> None:
        """Damage a header field, or bytes before or after compression."""
        content = rng.choice(_volumes())
        choice = rng.randrange(3)
        if choice == 0:
            content = _damage_header(content, rng)
        if choice == 1:
            content = damage_bytes(content, rng, header=352)
        compressed = rng.random() < 0.5
        content = gzip.compress(content, 1) if compressed else content
        if choice == 2:
            content = damage_bytes(content, rng, header=32)
        if rng.random() < 0.3:
            PROCESSOR.prepare(read_encoded(content, "row"))
            return
        path = folder / ("v.nii.gz" if compressed else "v.nii")
        path.write_bytes(content)
        CT_PROCESSOR.prepare(path)


class Dicom:
    """DICOM files and series with damaged fields or bytes."""

    name = "dicom"
    share = 20

    def try_one(self, rng: Random, folder: Path) -> None:
        """Damage a file, or one file of a series."""
        if rng.random() < 0.4:
            for number, content in enumerate(_series()):
                (folder / f"IM{number:02d}").write_bytes(content)
            damaged = folder / f"IM{rng.randrange(4):02d}"
            damaged.write_bytes(_damage_dicom(damaged.read_bytes(), rng))
            source = folder
        else:
            source = folder / "a.dcm"
            source.write_bytes(_damage_dicom(rng.choice(_dicom_files()), rng))
        CT_PROCESSOR.prepare(read_image(source, voi_window=rng.random() < 0.3))


def _random_array(rng: Random) -> object:
    shape = [rng.choice((0, 1, 2, 3, 4, 5, 17)) for _ in range(rng.randrange(6))]
    dtype = rng.choice(("u1", "i1", "i2", ">u2", "u4", "i8", "f2", "f4", "f8", "?", "c8", "O", "U3"))
    if dtype in ("O", "U3"):
        return np.full(shape, rng.choice(("x", None)), dtype)
    numbers = np.random.default_rng(rng.randrange(2**32))
    with np.errstate(all="ignore"):
        array = np.asarray(numbers.normal(size=shape) * 10.0 ** rng.randrange(300)).astype(dtype)
    if rng.random() < 0.3 and array.dtype.isnative and array.ndim:
        return torch.from_numpy(array)
    return array


@cache
def _images() -> list[tuple[str, bytes]]:
    numbers = np.random.default_rng(0)
    grey = Image.fromarray(numbers.integers(0, 255, (24, 20), dtype=np.uint8))
    deep = Image.fromarray(numbers.integers(0, 60000, (24, 20)).astype(np.uint16))
    files = []
    for suffix, image in (
        *((suffix, mode) for suffix in (".png", ".tif") for mode in (grey, grey.convert("RGB"), grey.convert("P"))),
        (".png", deep), (".tif", deep), (".jpg", grey), (".jpg", grey.convert("CMYK")), (".bmp", grey), (".webp", grey),
    ):  # fmt: skip
        stream = io.BytesIO()
        image.save(stream, {".jpg": "JPEG", ".tif": "TIFF"}.get(suffix, suffix[1:]))
        files.append((suffix, stream.getvalue()))
    return files


@cache
def _volumes() -> list[bytes]:
    volume = np.random.default_rng(0).normal(size=(9, 8, 7)) * 500
    affine = np.array([[-0.7, 0.1, 0, 10], [0.1, 0.8, 0, -20], [0, 0, 2.5, 30], [0, 0, 0, 1]])
    files = []
    for version in (nib.Nifti1Image, nib.Nifti2Image):
        for dtype in (np.uint8, np.int16, np.float32, np.float64):
            for endianness in "<>":
                header = version.header_class(endianness=endianness)
                header.set_data_dtype(dtype)
                image = version(volume.astype(dtype), affine, header)
                image.set_qform(affine, 1)
                files.append(image.to_bytes())
    return files


def _damage_header(content: bytes, rng: Random) -> bytes:
    first = (
        nib.Nifti1Image
        if 348 in (int.from_bytes(content[:4], order) for order in ("little", "big"))
        else None
    )
    template = (first or nib.Nifti2Image).header_class.template_dtype
    big = content[:4] in (b"\0\0\x01\x5c", b"\0\0\x02\x1c")
    header = np.frombuffer(content, template.newbyteorder(">" if big else "<"), 1).copy()
    for _ in range(rng.choice((1, 1, 2, 3))):
        values = header[rng.choice(template.names)].reshape(-1)
        place = rng.randrange(len(values))
        number = rng.choice((0, -1, 1, 2, 3, 7, 127, -32768, 32767, 2**31 - 1, 1e30, np.nan, np.inf))
        with np.errstate(all="ignore"):
            if values.dtype.kind == "f":
                values[place] = number
            elif values.dtype.kind in "iu":
                bounds = np.iinfo(values.dtype)
                values[place] = int(np.clip(np.nan_to_num(number), bounds.min, min(bounds.max, 2**62)))
            else:
                values[place] = rng.randbytes(4)
    return header.tobytes() + content[header.nbytes :]


@cache
def _dicom_files() -> list[bytes]:
    names = (
        "CT_small.dcm", "MR_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "examples_palette.dcm",
        "JPEG2000.dcm", "SC_rgb_small_odd.dcm", "SC_rgb_jpeg_dcmtk.dcm", "image_dfl.dcm", "rtdose.dcm", "liver_1frame.dcm",
        "reportsi.dcm",
    )  # fmt: skip
    paths = [get_testdata_file(name, download=False) for name in names]
    files = [Path(path).read_bytes() for path in paths if path is not None]
    return [content for content in files if len(content) < 400_000] + [_enhanced()]


@cache
def _series() -> list[bytes]:
    volume = np.random.default_rng(0).integers(0, 2000, (4, 10, 8)).astype(np.uint16)
    return [
        _dicom_bytes(
            pixels,
            ImagePositionPatient=[-10, -20, 2.5 * index],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            PixelSpacing=[0.8, 0.7],
            SliceThickness="2.5",
            RescaleSlope=1,
            RescaleIntercept=-1024,
            PixelPaddingValue=1,
            WindowCenter=[40, 400],
            WindowWidth=[400, 2000],
        )
        for index, pixels in enumerate(volume)
    ]


@cache
def _enhanced() -> bytes:
    shared, measures, transform, direction = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [0.8, 0.7]
    transform.RescaleSlope, transform.RescaleIntercept = 2, -1000
    direction.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence, shared.PixelValueTransformationSequence = [measures], [transform]
    shared.PlaneOrientationSequence = [direction]
    frames = []
    for index in range(4):
        frame, position, window = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [-10, -20, 3 * index]
        window.WindowCenter, window.WindowWidth = 40, 400
        frame.PlanePositionSequence, frame.FrameVOILUTSequence = [position], [window]
        frames.append(frame)
    pixels = np.random.default_rng(0).integers(0, 2000, (4, 10, 8)).astype(np.uint16)
    return _dicom_bytes(
        pixels,
        NumberOfFrames=4,
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=frames,
    )


def _dicom_bytes(pixels: np.ndarray, **fields) -> bytes:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.SeriesInstanceUID = CTImageStorage, "1.2.3", "1.2"
    dataset.Modality, dataset.SamplesPerPixel, dataset.PhotometricInterpretation = "CT", 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    dataset.PixelData = pixels.tobytes()
    for keyword, value in fields.items():
        setattr(dataset, keyword, value)
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


_FIELDS = (
    "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated", "BitsStored", "PixelRepresentation",
    "PhotometricInterpretation", "PlanarConfiguration", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
    "SliceThickness", "RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "PixelPaddingValue", "Modality",
    "ImageType", "SOPClassUID", "SeriesInstanceUID", "ModalityLUTSequence", "VOILUTSequence",
    "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence", "PixelData",
)  # fmt: skip
_RAW = (
    b"", b"0 ", b"-1", b"0,8\\0,7 ", b"1\\1 ", b"1\\2\\3 ", b"1\\0\\0\\0\\1\\0 ", b"NaN ", b"inf ", b"1e999 ", b"x ", b"\0\0",
    b"\xff\xff", b"\x01\0", b"MONOCHROME1 ", b"RGB ", b"PALETTE COLOR ", b"SEG ", b"ORIGINAL\\MOSAIC ", b"\xfe\xff\x00\xe0",
)  # fmt: skip


def _damage_dicom(content: bytes, rng: Random) -> bytes:
    if rng.random() < 0.5:
        return damage_bytes(content, rng, header=1500)
    dataset = pydicom.dcmread(io.BytesIO(content))
    for _ in range(rng.choice((1, 1, 2, 3))):
        keyword = rng.choice(_FIELDS)
        tag = Tag(tag_for_keyword(keyword))
        if rng.random() < 0.2:
            dataset._dict.pop(tag, None)
            continue
        raw = rng.choice(_RAW)
        vr = dictionary_VR(tag)[:2] if rng.random() < 0.8 else rng.choice(("US", "DS", "UN", "OB"))
        vr = "UN" if vr == "SQ" else vr
        dataset._dict[tag] = RawDataElement(tag, vr, len(raw), raw, 0, False, True)
    stream = io.BytesIO()
    try:
        dataset.save_as(stream, enforce_file_format=False)
    except Exception:  # the damage cannot be written
        return damage_bytes(content, rng, header=1500)
    return stream.getvalue()
