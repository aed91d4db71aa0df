"""DICOM SEG and SR, read back by other means than those that wrote them."""

import itertools
import shutil
import subprocess

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.sr._concepts_dict import concepts
from pydicom.uid import ComputedRadiographyImageStorage

from tests.fixtures.dicom_files import PATIENT, dicom, write_series
from vividmed import read_image
from vividmed.data.coding import target_codes
from vividmed.data.taxonomy import Taxonomy
from vividmed.errors import VividMedError
from vividmed.export.dicom_pdf import save_dicom_pdf
from vividmed.export.dicom_seg import save_dicom_seg
from vividmed.export.dicom_sr import save_dicom_sr
from vividmed.export.notice import NOTICE
from vividmed.export.pdf import save_pdf
from vividmed.processing.grounded_text import GroundedText, Phrase

TEXT = "A cyst of the left kidney and a small pleural effusion. No fracture."
SIZE = (6, 16, 20)
ORIENTATIONS = {
    "axial": (1, 0, 0, 0, 1, 0),
    "feet first": (-1, 0, 0, 0, 1, 0),
    "coronal": (1, 0, 0, 0, 0, -1),
    "sagittal": (0, 1, 0, 0, 0, -1),
    "oblique": (0.8, 0.6, 0, -0.36, 0.48, 0.8),
}


def write_oriented(folder, orientation):
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    volume = np.random.default_rng(0).integers(0, 2000, SIZE).astype(np.int16)
    study = {"StudyInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.2.4", "RescaleIntercept": -1000}
    write_series(folder, volume, RescaleSlope=1, SliceThickness=2.5, **study)
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        z = dataset.ImagePositionPatient[2]
        dataset.ImagePositionPatient = [round(float(v), 6) for v in np.cross(row, column) * z + [5, -7, 3]]
        dataset.ImageOrientationPatient = list(orientation)
        dataset.save_as(path, enforce_file_format=True)
    return read_image(folder)


def masks():
    cyst, effusion = np.zeros(SIZE, dtype=bool), np.zeros(SIZE, dtype=bool)
    cyst[1:4, 5:9, 8:15] = True
    cyst[1, 5, 8] = False
    effusion[4:, 2:5, 2:9] = True
    return cyst, effusion


def grounded():
    cyst, effusion = masks()
    phrases = [
        Phrase("cyst of the left kidney", 2, 25, cyst),
        Phrase("small pleural effusion", 32, 54, effusion),
    ]
    return GroundedText(TEXT, phrases)


def places(voxels, affine):
    """Positions in mm of the true voxels of (D, H, W), rounded, in any order."""
    index = np.argwhere(voxels)[:, ::-1]
    return {tuple(row) for row in (index @ affine[:3, :3].T + affine[:3, 3]).round(2) + 0.0}


def places_of_segment(dataset, number):
    """The same from the frames of a DICOM SEG, by the standard's own formula."""
    found = set()
    shared = dataset.SharedFunctionalGroupsSequence[0]
    direction = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, dtype=float).reshape(
        2, 3
    )
    spacing = np.array(shared.PixelMeasuresSequence[0].PixelSpacing, dtype=float)
    for pixels, frame in zip(dataset.pixel_array, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        # A single segment is named once for all frames.
        named = frame if "SegmentIdentificationSequence" in frame else shared
        if named.SegmentIdentificationSequence[0].ReferencedSegmentNumber != number:
            continue
        corner = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
        for y, x in np.argwhere(pixels):
            lps = corner + direction[0] * spacing[1] * x + direction[1] * spacing[0] * y
            found.add(tuple((lps * [-1, -1, 1]).round(2) + 0.0))
    return found


@pytest.mark.parametrize("orientation", ORIENTATIONS.values(), ids=ORIENTATIONS)
def test_segments_lie_where_the_masks_lie(tmp_path, orientation):
    image = write_oriented(tmp_path / "series", orientation)
    dataset = pydicom.dcmread(save_dicom_seg(image, grounded(), tmp_path / "seg.dcm"))
    for number, mask in enumerate(masks(), start=1):
        assert places_of_segment(dataset, number) == places(mask, image.affine)


# Every way in which rows, columns and slices can run along the axes of the patient.
AXIS_ORDERS = {
    "".join(letters): signed
    for axes in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
    for signed in [[sign * np.eye(3)[axis] for axis, sign in zip(axes, signs, strict=True)]]
    for letters in [
        ["LPS"[axis] if sign > 0 else "RAI"[axis] for axis, sign in zip(axes, signs, strict=True)]
    ]
}
_TURN = np.array([[0.8, 0.6, 0], [-0.36, 0.48, 0.8], [0.48, -0.64, 0.6]])
OBLIQUE = {f"{name} turned": [axis @ _TURN for axis in axes] for name, axes in list(AXIS_ORDERS.items())[::7]}


def write_axes(folder, axes):
    """A series whose columns, rows and slices run along three unit vectors of the patient (LPS)."""
    across, down, through = axes
    volume = np.random.default_rng(0).integers(0, 2000, (3, 5, 4)).astype(np.int16)
    study = {"StudyInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.2.4", "RescaleIntercept": -1000}
    folder.mkdir()
    for index, pixels in enumerate(volume):
        position = np.array([5.0, -7.0, 3.0]) + 2.5 * index * through
        fields = {
            "ImagePositionPatient": [round(float(v), 6) for v in position],
            "ImageOrientationPatient": [float(v) for v in (*across, *down)],
            "PixelSpacing": [0.8, 0.7],
            "SliceThickness": 2.5,
            "RescaleSlope": 1,
            "InstanceNumber": index + 1,
        }
        dicom(pixels, **fields, **study).save_as(folder / f"{index}.dcm", enforce_file_format=True)
    return read_image(folder)


@pytest.mark.parametrize("axes", (AXIS_ORDERS | OBLIQUE).values(), ids=AXIS_ORDERS | OBLIQUE)
def test_an_independent_reader_finds_the_marked_voxels_in_the_source(tmp_path, axes):
    assert len(AXIS_ORDERS) == 48
    image = write_axes(tmp_path / "series", axes)
    marked = image.array[0] > 500
    text = GroundedText("A mass.", [Phrase("mass", 2, 6, marked)])
    dataset = pydicom.dcmread(save_dicom_seg(image, text, tmp_path / "seg.dcm"))
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "series")))
    source = reader.Execute()
    values = SimpleITK.GetArrayFromImage(source)
    places = np.array(sorted(places_of_segment(dataset, 1))) * [-1, -1, 1]
    index = np.array([source.TransformPhysicalPointToIndex(place) for place in places.tolist()])
    assert len(set(map(tuple, index.tolist()))) == len(places) == (values > 500).sum()
    assert (values[tuple(index[:, ::-1].T)] > 500).all()


def test_segments_are_coded_with_their_side(tmp_path):
    image = write_oriented(tmp_path / "series", ORIENTATIONS["axial"])
    dataset = pydicom.dcmread(save_dicom_seg(image, grounded(), tmp_path / "seg.dcm"))
    cyst, effusion = dataset.SegmentSequence
    (concept,) = cyst.SegmentedPropertyTypeCodeSequence
    assert (concept.CodingSchemeDesignator, concept.CodeMeaning) == ("SCT", "Cyst")
    assert concept.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    assert effusion.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Pleural effusion"
    assert "SegmentedPropertyTypeModifierCodeSequence" not in effusion.SegmentedPropertyTypeCodeSequence[0]
    assert [str(segment.SegmentLabel) for segment in dataset.SegmentSequence] == [
        "cyst of the left kidney",
        "small pleural effusion",
    ]


def test_report_has_text_measurements_and_references_to_its_segments(tmp_path):
    image = write_oriented(tmp_path / "series", ORIENTATIONS["axial"])
    files = save_dicom_sr(image, grounded(), tmp_path / "out")
    report, segmentation = pydicom.dcmread(files.report), pydicom.dcmread(files.segmentation)
    assert report.StudyInstanceUID == segmentation.StudyInstanceUID == "1.2.3"
    assert report.VerificationFlag == "UNVERIFIED"
    items = list(walk(report))
    (comment,) = (item for item in items if meaning(item) == "Comment")
    assert comment.TextValue == f"{NOTICE}\n{TEXT}"
    volumes = [
        float(item.MeasuredValueSequence[0].NumericValue) for item in items if meaning(item) == "Volume"
    ]
    voxel = float(np.abs(np.linalg.det(image.affine[:3, :3]))) / 1000
    assert volumes == pytest.approx([mask.sum() * voxel for mask in masks()], abs=1e-3)
    attenuations = [
        float(item.MeasuredValueSequence[0].NumericValue)
        for item in items
        if meaning(item) == "Attenuation Coefficient"
    ]
    assert attenuations == pytest.approx([image.array[0][mask].mean() for mask in masks()], abs=0.01)
    referenced = [
        (
            item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID,
            item.ReferencedSOPSequence[0].ReferencedSegmentNumber,
        )
        for item in items
        if item.get("ValueType") == "IMAGE" and "ReferencedSegmentNumber" in item.ReferencedSOPSequence[0]
    ]
    assert referenced == [(segmentation.SOPInstanceUID, 1), (segmentation.SOPInstanceUID, 2)]


def walk(item):
    yield item
    for child in item.get("ContentSequence", ()):
        yield from walk(child)


def meaning(item):
    names = item.get("ConceptNameCodeSequence")
    return names[0].CodeMeaning if names else None


def test_one_result_is_one_object_and_another_result_another(tmp_path):
    image = write_oriented(tmp_path / "series", ORIENTATIONS["axial"])
    uids = []
    for name, text in (
        ("a", grounded()),
        ("b", grounded()),
        ("c", GroundedText(TEXT, grounded().phrases[:1])),
    ):
        files = save_dicom_sr(image, text, tmp_path / name, model="m")
        uids.append(
            [str(pydicom.dcmread(path).SOPInstanceUID) for path in (files.report, files.segmentation)]
        )
    assert uids[0] == uids[1]
    assert not set(uids[0]) & set(uids[2])


def test_masks_of_the_same_bounds_and_size_are_different_objects(tmp_path):
    image = write_oriented(tmp_path / "series", ORIENTATIONS["axial"])
    uids = []
    for name, hole in (("a", (1, 6, 9)), ("b", (2, 6, 9))):
        mask = masks()[0]
        mask[hole] = False
        path = save_dicom_seg(
            image, GroundedText(TEXT, [Phrase("cyst", 2, 6, mask)]), tmp_path / f"{name}.dcm"
        )
        uids.append(str(pydicom.dcmread(path).SOPInstanceUID))
    assert uids[0] != uids[1]


def test_a_report_without_masks_has_no_segmentation(tmp_path):
    image = write_oriented(tmp_path / "series", ORIENTATIONS["axial"])
    files = save_dicom_sr(image, GroundedText("No abnormality."), tmp_path / "out")
    assert files.segmentation is None
    assert "No abnormality." in "".join(
        str(item.get("TextValue", "")) for item in walk(pydicom.dcmread(files.report))
    )


def test_only_what_the_standard_asks_for_is_copied_of_the_patient(tmp_path):
    folder = tmp_path / "series"
    write_oriented(folder, ORIENTATIONS["axial"])
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.PatientAddress, dataset.OtherPatientIDs = "1 Secret Street", "SECRET"
        dataset.add_new((0x0011, 0x0010), "LO", "SECRET OWNER")
        dataset.save_as(path, enforce_file_format=True)
    files = save_dicom_sr(read_image(folder), grounded(), tmp_path / "out")
    for path in (files.report, files.segmentation):
        assert str(pydicom.dcmread(path).PatientName) == PATIENT
        assert b"SECRET" not in path.read_bytes().upper()


@pytest.mark.parametrize("source", ["array", "nifti"])
def test_images_that_are_not_from_dicom_are_refused(tmp_path, source):
    image = read_image(np.zeros(SIZE, dtype=np.int16))
    if source == "nifti":
        import nibabel as nib

        nib.Nifti1Image(np.zeros(SIZE[::-1], dtype=np.int16), np.eye(4)).to_filename(tmp_path / "ct.nii.gz")
        image = read_image(tmp_path / "ct.nii.gz")
    with pytest.raises(VividMedError, match="not read from DICOM"):
        save_dicom_seg(image, grounded(), tmp_path / "seg.dcm")
    assert not (tmp_path / "seg.dcm").exists()


def boxed():
    """A text with a mask, a box without a mask, and a phrase that was not found."""
    boxes = np.array([[1.0, 2.5, 3, 4, 7, 9]])
    phrases = [
        *grounded().phrases[:1],
        Phrase("small pleural effusion", 32, 54, None, boxes, np.array([0.8])),
    ]
    return GroundedText(TEXT, [*phrases, Phrase("fracture", 59, 67)])


def write_radiograph(path):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 30)).astype(np.uint16)
    fields = {"Modality": "CR", "StudyInstanceUID": "1.2.3", "SOPClassUID": ComputedRadiographyImageStorage}
    dataset = dicom(pixels, **fields)
    dataset.file_meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    dataset.save_as(path, enforce_file_format=True)
    return read_image(path)


def on_radiograph():
    mask = np.zeros((1, 40, 30), dtype=bool)
    mask[0, 5:20, 4:12] = True
    boxes = np.array([[0.0, 2, 3, 1, 17, 19], [0, 20, 3, 1, 30, 19]])
    return GroundedText(
        TEXT,
        [
            Phrase("cyst of the left kidney", 2, 25, mask),
            Phrase("small pleural effusion", 32, 54, None, boxes, np.array([0.8, 0.7])),
        ],
    )


OBJECTS = {
    "masks of a series": (lambda path: write_oriented(path, ORIENTATIONS["oblique"]), grounded),
    "boxes of a series": (lambda path: write_oriented(path, ORIENTATIONS["sagittal"]), boxed),
    "radiograph": (write_radiograph, on_radiograph),
    "text of a radiograph": (write_radiograph, lambda: GroundedText("No abnormality.")),
}


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dciodvfy of the package dicom3tools")
@pytest.mark.parametrize(("write", "text"), OBJECTS.values(), ids=OBJECTS)
def test_a_validator_of_the_standard_finds_no_error(tmp_path, write, text):
    image, report = write(tmp_path / "source"), text()
    files = save_dicom_sr(image, report, tmp_path / "out")
    document = save_dicom_pdf(image, report, tmp_path / "out" / "document.dcm")
    for path in filter(None, (files.report, files.segmentation, document)):
        result = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True)
        assert "Error" not in result.stderr, result.stderr


def test_a_radiograph_has_a_segmentation_and_outlines(tmp_path):
    image = write_radiograph(tmp_path / "source")
    files = save_dicom_sr(image, on_radiograph(), tmp_path / "out")
    np.testing.assert_array_equal(pydicom.dcmread(files.segmentation).pixel_array[5:20, 4:12], 1)
    items = list(walk(pydicom.dcmread(files.report)))
    outlines = [
        np.array(item.GraphicData).reshape(-1, 2) for item in items if item.get("ValueType") == "SCOORD"
    ]
    assert [outline[:3].tolist() for outline in outlines] == [
        [[3, 2], [19, 2], [19, 17]],
        [[3, 20], [19, 20], [19, 30]],
    ]


def test_report_codes_sites_and_sides_and_names_who_measured(tmp_path):
    image = write_oriented(tmp_path / "series", ORIENTATIONS["axial"])
    text = GroundedText(
        "A cyst of the left kidney. Left pleural effusion.",
        [
            Phrase("cyst of the left kidney", 2, 25, masks()[0]),
            Phrase("Left pleural effusion", 27, 48, masks()[1]),
        ],
    )
    items = list(walk(pydicom.dcmread(save_dicom_sr(image, text, tmp_path / "out").report)))
    (site,) = (item for item in items if meaning(item) == "Finding Site")
    assert site.ConceptCodeSequence[0].CodeMeaning == "Kidney"
    sides = [item.ConceptCodeSequence[0].CodeMeaning for item in items if meaning(item) == "Laterality"]
    assert sides == ["Left", "Left"]
    algorithms = {item.TextValue for item in items if meaning(item) == "Algorithm Name"}
    assert algorithms == {"vividmed mask measurement"}


def test_a_box_is_outlined_on_every_slice_that_it_reaches_into(tmp_path):
    image = write_oriented(tmp_path / "series", ORIENTATIONS["axial"])
    files = save_dicom_sr(image, boxed(), tmp_path / "out")
    outlines = [item for item in walk(pydicom.dcmread(files.report)) if item.get("ValueType") == "SCOORD"]
    referenced = [
        item.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in outlines
    ]
    expected = [pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in image.files[1:4]]
    assert referenced == expected


def test_a_series_whose_identifiers_were_emptied_has_objects(tmp_path):
    folder = tmp_path / "series"
    write_oriented(folder, ORIENTATIONS["axial"])
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
            setattr(dataset, keyword, "")
        pydicom.dcmwrite(path, dataset, enforce_file_format=False)
    files = save_dicom_sr(read_image(folder), grounded(), tmp_path / "out")
    report, segmentation = pydicom.dcmread(files.report), pydicom.dcmread(files.segmentation)
    assert report.StudyInstanceUID == segmentation.StudyInstanceUID != ""


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("character_set", ["", "ISO_IR 100"])
def test_names_and_texts_keep_their_characters_whatever_the_set_of_the_source(tmp_path, character_set):
    name, text = (
        "M\u00fcller^J\u00f6rg" if character_set else "Mueller^Joerg",
        "Liver \u2265 20 cm: \u809d\u81cf.",
    )
    volume = np.random.default_rng(0).integers(0, 2000, SIZE).astype(np.int16)
    write_series(tmp_path / "series", volume, SpecificCharacterSet=character_set, PatientName=name)
    image, phrase = read_image(tmp_path / "series"), Phrase("Liver \u2265 20 cm", 0, 13, masks()[0])
    report = GroundedText(text, [phrase])
    save_dicom_sr(image, report, tmp_path)
    save_dicom_pdf(image, report, tmp_path / "document.dcm")
    for path in sorted(tmp_path.glob("*.dcm")):
        assert pydicom.dcmread(path).PatientName == name, path.name
    written = pydicom.dcmread(tmp_path / "report.dcm").iterall()
    assert any(text in element.value for element in written if element.keyword == "TextValue")
    segmentation = pydicom.dcmread(tmp_path / "segmentation.dcm")
    assert segmentation.SegmentSequence[0].SegmentLabel == phrase.text
    # The source had neither, but the objects need them.
    measures = segmentation.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert segmentation.FrameOfReferenceUID
    assert measures.SliceThickness == 2.5


def test_the_document_in_dicom_is_the_pdf(tmp_path):
    image = write_oriented(tmp_path / "series", ORIENTATIONS["axial"])
    pdf = save_pdf(image, grounded(), tmp_path / "report.pdf").read_bytes()
    assert pdf.startswith(b"%PDF-")
    dataset = pydicom.dcmread(save_dicom_pdf(image, grounded(), tmp_path / "document.dcm"))
    assert dataset.EncapsulatedDocument[: dataset.EncapsulatedDocumentLength] == pdf
    assert dataset.StudyInstanceUID == "1.2.3"
    assert len(dataset.SourceInstanceSequence) == SIZE[0]
    assert PATIENT.encode() not in pdf


def test_codes_are_those_of_the_dictionary():
    table = target_codes()
    taxonomy = Taxonomy.load()
    known = {
        (code, meaning) for entries in concepts["SCT"].values() for code, (meaning, *_) in entries.items()
    }
    from_dictionary = {name: code for name, code in table.items() if code.origin == "pydicom"}
    assert len(from_dictionary) >= 150
    for name, code in from_dictionary.items():
        assert name in taxonomy
        assert (code.value, code.meaning) in known
        terms = {term.lower() for term in taxonomy[name].terms}
        assert code.meaning.lower() in terms or f"{code.side} {code.meaning.lower()}" in terms
