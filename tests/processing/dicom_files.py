"""DICOM files made for tests, with patient fields that must never come out again."""

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

PATIENT = "Doe^Jane"
SERIES = "1.2.826.0.1.3680043.8.498.1234567890"


def dicom(pixels: np.ndarray, **fields) -> FileDataset:
    """A file with ``pixels``: (H, W), (frames, H, W) or (H, W, 3) uint8."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    colour = pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[-1] == 3
    dataset.PatientName, dataset.PatientID = PATIENT, "12345"
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    dataset.SeriesInstanceUID, dataset.Modality = SERIES, "CT"
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        dataset.PlanarConfiguration = 0
    elif pixels.ndim == 3:
        dataset.NumberOfFrames = len(pixels)
    dataset.Rows, dataset.Columns = pixels.shape[:2] if colour else pixels.shape[-2:]
    bits = pixels.dtype.itemsize * 8
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    for keyword, value in fields.items():
        setattr(dataset, keyword, value)
    return dataset


def plane(z: float, spacing=(0.8, 0.7), orientation=(1, 0, 0, 0, 1, 0)) -> dict:
    """Fields that place an axial slice at ``z`` mm."""
    return {
        "ImagePositionPatient": [-10.0, -20.0, z],
        "ImageOrientationPatient": list(orientation),
        "PixelSpacing": list(spacing),
    }


def write_series(
    folder: Path, volume: np.ndarray, *, step: float = 2.5, shuffled: bool = True, **fields
) -> None:
    """One file a slice of ``volume`` (D, H, W), named so that the order of names is not the order of slices."""
    folder.mkdir(exist_ok=True)
    names = np.random.default_rng(0).permutation(len(volume)) if shuffled else range(len(volume))
    for index, name in enumerate(names):
        dataset = dicom(volume[index], **plane(index * step), **fields)
        dataset.save_as(folder / f"IM{name:04d}", enforce_file_format=True)


def enhanced(volume: np.ndarray, step: float = 3.0) -> FileDataset:
    """A multi-frame file whose frames tell where they lie and how to scale them."""
    dataset = dicom(volume)
    shared, measures, transform, direction = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [0.8, 0.7]
    transform.RescaleSlope, transform.RescaleIntercept = 2, -1000
    direction.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence = [measures]
    shared.PixelValueTransformationSequence = [transform]
    shared.PlaneOrientationSequence = [direction]
    dataset.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for index in range(len(volume)):
        frame, position = Dataset(), Dataset()
        position.ImagePositionPatient = [-10.0, -20.0, index * step]
        frame.PlanePositionSequence = [position]
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = frames
    return dataset
