"""Names of modalities as rows store them, from the codes and words that people write."""

import re

_NAMES = {
    "ct": "CT", "cta": "CT angiography", "cbct": "cone-beam CT", "computed tomography": "CT",
    "pet": "PET", "pt": "PET", "mr": "MRI", "mri": "MRI", "mra": "MR angiography",
    "x ray": "X-ray", "xray": "X-ray", "cr": "X-ray", "dx": "X-ray", "cxr": "X-ray", "xr": "X-ray", "rg": "X-ray",
    "radiograph": "X-ray", "radiography": "X-ray", "chest x ray": "X-ray",
    "us": "ultrasound", "ultrasound": "ultrasound", "ultrasonography": "ultrasound",
    "mg": "mammography", "mammography": "mammography", "mammogram": "mammography",
    "t1": "T1 MRI", "t1w": "T1 MRI", "t1n": "T1 MRI", "t1ce": "contrast-enhanced T1 MRI", "t1c": "contrast-enhanced T1 MRI",
    "t1gd": "contrast-enhanced T1 MRI", "t2": "T2 MRI", "t2w": "T2 MRI", "t2f": "T2 FLAIR MRI", "flair": "T2 FLAIR MRI",
    "t2 flair": "T2 FLAIR MRI", "t2starw": "T2* MRI", "pd": "PD MRI", "pdw": "PD MRI", "adc": "ADC MRI",
    "dwi": "DWI MRI", "swi": "SWI MRI", "bold": "functional MRI",
}  # fmt: skip
"""Words in lower case, without signs, to names."""


def known_modality(text: str) -> str | None:
    """Name of a modality: ``CXR`` gives ``X-ray``; None if the text is not one of the common names."""
    return _NAMES.get(re.sub(r"[\W_]+", " ", text.casefold()).strip())


def modality_name(text: str) -> str:
    """The common name of a modality, or the text as it is."""
    return known_modality(text) or " ".join(text.split())
