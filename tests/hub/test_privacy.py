"""What the privacy scan finds, what it leaves alone, and that a push stops at it."""

import datetime
import json

import pytest
from datasets import Dataset

from vividmed.errors import VividMedError
from vividmed.hub.identifiers import find_identifiers
from vividmed.hub.privacy import MAX_FINDINGS, check_files, scan_files

TOKEN = "hf_" + "aB3dE6gH9jK2mN5pQ8sT" * 2

IDENTIFYING = [
    (f"export HF_TOKEN={TOKEN}", "access token"),
    ("-----BEGIN RSA PRIVATE KEY-----", "access token"),
    ("Contact jane.doe+ct@radiology.example.org for the key.", "e-mail address"),
    ("1.3.6.1.4.1.14519.5.2.1.6279.6001.179049373636438705059720603192.dcm", "DICOM UID"),
    ("SeriesInstanceUID 1.2.840.113619.2.55.3.604688119.969.1268071029.320", "DICOM UID"),
    ("MRN: 00482913", "record number"),
    ("Medical record number 4829-1377", "record number"),
    ("accession no. AB1234567", "record number"),
    ("PatientID=10032725", "record number"),
    ("SSN 078-05-1120", "record number"),
    ("Findings were called to (617) 555-0143.", "phone number"),
    ("call 617-555-0143", "phone number"),
    ("reached on +44 20 7946 0958", "phone number"),
    ("pager 5550143", "phone number"),
    ("Comparison: 2019-03-14.", "date"),
    ("Comparison with the study of 14/03/2019.", "date"),
    ("Comparison: 3/14/2019", "date"),
    ("Voruntersuchung vom 14.03.2019", "date"),
    ("compared to 03/14/19, unchanged", "date"),
    ("CT of 14 March 2019", "date"),
    ("on March 14th, 2019", "date"),
    ("as seen on October 3", "date"),
    ("Dec. 24, 2020", "date"),
    ("scan_20190314_ct.nii.gz", "date"),
    ("IMG20190314.png", "date"),
    ("thorax_2019_03_14.png", "date"),
    ("DOE^JANE", "person name"),
    ("Patient Name: Jane", "person name"),
    ("Discussed with Dr. Miller at once.", "person name"),
]

ORDINARY = [
    "There is a 12 x 8 x 10 mm nodule in the right upper lobe (series 3, image 145).",
    "The nodule measures 1.2 x 0.8 x 1.0 cm, previously 10/12/15 mm.",
    "Degenerative changes at L4/5 and C5/6/7, disc height 3/4.",
    "Left ventricular ejection fraction 55-60 %, gradient 12-15 mmHg, heart rate 120-130.",
    "Volume 1250.75 ml; mean attenuation -850.5 HU, 100-200 HU after contrast at 120 kVp, 350 mAs.",
    "Staging pT2N1M0, BI-RADS 4, Lung-RADS 2, PI-RADS 3-4, Bosniak IIF, ASPECTS 8/10.",
    "T1- and T2-weighted images, b = 0, 500, 1000 s/mm^2, TE/TR 90/3500 ms, matrix 512 x 512 x 128.",
    "Compared to ___, the effusion has increased. Dr. ___ was informed at ___ a.m.",
    "May show 3 mm calcifications; follow-up in 6-12 months, no later than the year 2025.",
    "The patient may 5 days later return. May 12 lesions be seen?",
    "The catheter tip lies 3.5 cm above the carina. MR angiography. Ms plaques. MS Plaques in 2019.",
    "Vertebrae T12 to L5; 12 ribs on each side; the 3/10 pain score; 1/2/3 lesions of 2-3 mm.",
    "Transfer syntax 1.2.840.10008.1.2.4.90 is supported; section 1.2.3.4.5.6 of the standard.",
    "Versions: torch 2.13.0, transformers 5.23.1, datasets 5.2.0.dev0, numpy==2.1.3",
    "doi:10.1038/s41597-019-0322-0, arXiv:2403.17834v2, ISBN 978-3-030-00889-5, ORCID 0000-0002-1825-0097",
    "@article{a2019, title={A set}, year={2019}, month={3}, pages={317--325}, volume={20190}}",
    "train-00000-of-00012.parquet",
    "BraTS-GLI-00005-100/BraTS-GLI-00005-100-t1c.nii.gz",
    "p10/p10000032/s50414267/02aa804e-bde0afdd-112c0b34-7bc16630-4e384014.jpg",
    "20191104-bde0afdd-20190314-7bc16630-4e384014.jpg",
    "550e8400-e29b-41d4-a716-446655440000",
    "2f20190314ab77c0 9b1deb4d20200101c",
    "Use hf_hub_download or hf_transfer; hf auth login.",
    "The scan covers 300 slices of 1.25 mm; window 400/40; CTDI 12.34 mGy, DLP 456.7 mGy*cm.",
    "Tel-Aviv score, fax-like artefact, phone held over the abdomen.",
    "Accession to the union; the medical record is incomplete; patient id is pseudonymous.",
    "Coordinates 123.456, -78.901, 45.678; spacing (0.703125, 0.703125, 1.25).",
]


def write_rows(folder, rows, name="train.parquet"):
    Dataset.from_list(rows).to_parquet(folder / name)
    return name


@pytest.mark.parametrize(("text", "kind"), IDENTIFYING)
def test_identifying_text_is_found(text, kind):
    assert kind in [identifier.kind for identifier in find_identifiers(text)]


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_reports_and_references_are_left_alone(text):
    assert find_identifiers(text) == ()


@pytest.mark.parametrize(
    "form", ["%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y", "%Y%m%d", "%d %B %Y", "%b %d, %Y", "%d-%b-%Y"]
)
def test_every_day_of_a_year_is_found_in_every_written_form(form):
    days = [datetime.date(2016, 1, 1) + datetime.timedelta(days=number) for number in range(366)]
    missed = [day for day in days if not find_identifiers(f"seen {day.strftime(form)}, stable")]
    assert missed == []


def test_findings_name_file_line_column_and_row(tmp_path):
    (tmp_path / "README.md").write_text("# Set\n\nAsk jane@example.org.\n")
    rows = [
        {"id": str(number), "messages": [{"role": "user", "content": "No finding."}]} for number in range(600)
    ]
    rows[517]["messages"].append({"role": "assistant", "content": "Stable since 2019-03-14."})
    findings = scan_files(tmp_path, ["README.md", write_rows(tmp_path, rows)])
    places = [(finding.identifier.text, finding.place) for finding in findings]
    assert places == [
        ("jane@example.org", "README.md, line 3"),
        ("2019-03-14", "train.parquet, column 'messages', row 517"),
    ]


def test_file_names_inside_rows_are_scanned_and_image_bytes_are_not(tmp_path):
    image = {"bytes": b"mail jane@example.org", "path": "chest_20190314.png"}
    findings = scan_files(tmp_path, [write_rows(tmp_path, [{"images": [image]}])])
    assert [finding.identifier.text for finding in findings] == ["20190314"]


def test_columns_with_the_names_of_patient_fields_are_found_and_the_pseudonymous_key_is_not(tmp_path):
    name = write_rows(
        tmp_path, [{"patient": "a1", "PatientBirthDate": "x", "details": {"Accession Number": 3}}]
    )
    found = {finding.identifier.text for finding in scan_files(tmp_path, [name])}
    assert found == {"PatientBirthDate", "Accession Number"}


def test_file_names_are_scanned(tmp_path):
    (tmp_path / "hist_2019-03-14.png").write_bytes(b"")
    assert [f.identifier.kind for f in scan_files(tmp_path, ["hist_2019-03-14.png"])] == ["date"]


def test_vocabularies_of_tokenizers_are_not_prose(tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps({"vocab": ["Dr. Miller"]}))
    assert scan_files(tmp_path, ["tokenizer.json"]) == []


def test_accepted_texts_pass_but_tokens_never_do(tmp_path):
    (tmp_path / "README.md").write_text(f"Released 2019-03-14 by {TOKEN}\n")
    findings = scan_files(tmp_path, ["README.md"], accept=["2019-03-14", TOKEN])
    assert [finding.identifier.kind for finding in findings] == ["access token"]


def test_refusal_is_one_line_that_lists_findings_without_repeating_the_token(tmp_path):
    (tmp_path / "README.md").write_text("\n".join([TOKEN, *(f"2019-03-{day}" for day in range(10, 20))]))
    with pytest.raises(VividMedError) as refusal:
        check_files(tmp_path, ["README.md"])
    message = str(refusal.value)
    assert "\n" not in message
    assert "date '2019-03-10' in README.md, line 2" in message
    assert "and 6 more" in message
    assert TOKEN not in message
    assert "hf_aB3..." in message


def test_number_of_findings_is_bounded(tmp_path):
    (tmp_path / "README.md").write_text("2019-03-14\n" * 500)
    assert len(scan_files(tmp_path, ["README.md"])) == MAX_FINDINGS
    with pytest.raises(VividMedError, match=r"at least 195 more"):
        check_files(tmp_path, ["README.md"])


def test_damaged_files_are_named(tmp_path):
    name = write_rows(tmp_path, [{"id": "a" * 5000}])
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-20])
    with pytest.raises(VividMedError, match=r"train\.parquet cannot be read as Parquet"):
        scan_files(tmp_path, [name])
    (tmp_path / "README.md").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(VividMedError, match=r"README\.md cannot be read as UTF-8"):
        scan_files(tmp_path, ["README.md"])
