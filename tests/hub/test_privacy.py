"""What the privacy scan finds, what it ignores, and that a finding stops the push."""

import datetime
import gzip
import io
import json
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from PIL import ExifTags, Image, PngImagePlugin
from safetensors.numpy import save_file

from vividmed.data.adapters import adapter_names, get_adapter
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
    ("doe^jane", "person name"),
    ("MÜLLER^JÜRGEN^^DR", "person name"),
    ("Mu\u0308ller^Ju\u0308rgen", "person name"),
    ("van der Berg^Jan", "person name"),
    ("LI^X", "person name"),
    ("山田^太郎", "person name"),
    ("Иванов^Иван", "person name"),
    ("Befund an Dr. Müller.", "person name"),
    ("Seen by Dr. Li.", "person name"),
    ("Seen by Dr\nNg today", "person name"),
    ("Prof. Dr. med. von Österreich", "person name"),
    ("Dr. J. O'Brien", "person name"),
    ("DR. MILLER WAS INFORMED", "person name"),
    ("Frau Özdemir", "person name"),
    ("Dr. 李", "person name"),
    ("Electronically signed: Żaneta Nowak, M.D.", "person name"),
    ("dictated by Jane Doe", "person name"),
    ("Name: Doe, Jane", "person name"),
    ('"PatientName": "Jane Doe"', "person name"),
    ("12-MAY-2019", "date"),
    ("12MAY2019", "date"),
    ("12-May-19", "date"),
    ("Mar-14-2019", "date"),
    ("2019-Mar-14", "date"),
    ("14. März 2019", "date"),
    ("le 14 août 2019", "date"),
    ("14 de marzo de 2019", "date"),
    ("2019年3月14日", "date"),
    ("２０１９-０３-１４", "date"),
    ("2019:03:14 10:22:01", "date"),
    ("20190314101500.000000", "date"),
    ("20190314T101500", "date"),
    ("CT vom 14.3.19", "date"),
    ("03/14/19", "date"),
    ("seen on the 3rd of October", "date"),
    ("/home/jdoe/outputs/vg", "home folder"),
    ("2.25.329800735698586629295641978511506172918", "DICOM UID"),
    ("jürgen.müller@klinik-köln.example", "e-mail address"),
    ("github_pat_" + "1A" * 20, "access token"),
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
    "Units of s/mm^2, f(x)^n, A^T, x^y and 10^-3; R^N; e^x.",
    "Dr. ___ was called; Ms plaques; MR Angiography; the Drs were informed.",
    "Levels C5/6, L4/5; sizes 10/12/15 mm and 01/02/03 cm; score 7/10/20.",
    "Mean diffusivity, MD; FA and MD maps; Maine, USA.",
    "It may 2 mm march 3 times; version 2.0, January 2004; in 2019 and 2020.",
]


def write_rows(folder, rows, name="train.parquet"):
    Dataset.from_list(rows).to_parquet(folder / name)
    return name


@pytest.mark.parametrize(("text", "kind"), IDENTIFYING)
def test_identifying_text_is_found(text, kind):
    assert kind in [identifier.category for identifier in find_identifiers(text)]


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_reports_and_references_pass(text):
    assert find_identifiers(text) == ()


@pytest.mark.parametrize(
    "form", ["%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y", "%Y%m%d", "%d %B %Y", "%b %d, %Y", "%d-%b-%Y"]
)
def test_every_day_of_a_year_is_found_in_every_written_form(form):
    days = [datetime.date(2016, 1, 1) + datetime.timedelta(days=number) for number in range(366)]
    missed = [day for day in days if not find_identifiers(f"seen {day.strftime(form)}, stable")]
    assert missed == []


HOSTILE = [
    "1.", "a@", "a.", "A^", "9 ", "(2", "Dr. ", "hf_", "-", "12-", "patient id ", "tel (", "00000000-", "2019",
    "^", "A ", "a'", "Dr. von ", "-----BEGIN ", "14 March ", "eyJ", "+1 (", "2.25.", " ", "\u0308", "signed by A. ",
]  # fmt: skip


def test_time_grows_linearly_with_hostile_text():
    def seconds(length):
        start = time.process_time()
        for piece in HOSTILE:
            find_identifiers((piece * length)[:length])
        return time.process_time() - start

    short, long = seconds(1_000), seconds(6_000)
    assert long < 6 * 3 * short


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


def test_file_names_and_text_inside_rows_are_scanned_and_the_bits_of_masks_are_not(tmp_path):
    image = {"bytes": b"mail jane@example.org", "path": "chest_20190314.png"}
    mask = {"bits": b"\0\xff jane@example.org \x07" * 9}
    findings = scan_files(tmp_path, [write_rows(tmp_path, [{"images": [image], "masks": [mask]}])])
    assert {finding.identifier.text for finding in findings} == {"20190314", "jane@example.org"}


def test_columns_with_the_names_of_patient_fields_are_found_and_the_pseudonymous_key_is_not(tmp_path):
    name = write_rows(
        tmp_path, [{"patient": "a1", "PatientBirthDate": "x", "details": {"Accession Number": 3}}]
    )
    found = {finding.identifier.text for finding in scan_files(tmp_path, [name])}
    assert found == {"PatientBirthDate", "Accession Number"}


def test_file_names_are_scanned(tmp_path):
    (tmp_path / "hist_2019-03-14.png").write_bytes(b"")
    assert [f.identifier.category for f in scan_files(tmp_path, ["hist_2019-03-14.png"])] == ["date"]


def test_words_of_vocabularies_are_neither_fields_nor_findings(tmp_path):
    (tmp_path / "tokenizer.json").write_text(
        json.dumps({"model": {"vocab": {"address": 123456, "Dr": 2, "▁Miller": 3}}})
    )
    assert scan_files(tmp_path, ["tokenizer.json"]) == []


def test_accepted_texts_pass_but_tokens_never_do(tmp_path):
    (tmp_path / "README.md").write_text(f"Released 2019-03-14 by {TOKEN}\n")
    findings = scan_files(tmp_path, ["README.md"], accept=["2019-03-14", TOKEN])
    assert [finding.identifier.category for finding in findings] == ["access token"]


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
    with pytest.raises(VividMedError, match=r"train\.parquet: cannot be read as Parquet"):
        scan_files(tmp_path, [name])
    (tmp_path / "README.md").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(VividMedError, match=r"README\.md: cannot be read as UTF-8"):
        scan_files(tmp_path, ["README.md"])


NAME = "MÜLLER^JÜRGEN"


def png(**text):
    info = PngImagePlugin.PngInfo()
    for key, value in text.items():
        info.add_itxt(key, value, zip=True)
    buffer = io.BytesIO()
    Image.new("L", (4, 4)).save(buffer, "png", pnginfo=info)
    return buffer.getvalue()


def with_exif(suffix, ifd, tag, value):
    exif = Image.Exif()
    (exif if ifd is None else exif.get_ifd(ifd))[tag] = value
    buffer = io.BytesIO()
    Image.new("L", (4, 4)).save(buffer, suffix, exif=exif)
    return buffer.getvalue()


def jpeg(**options):
    buffer = io.BytesIO()
    Image.new("L", (4, 4)).save(buffer, "jpeg", **options)
    return buffer.getvalue()


def nifti(*, version=1, zipped=False, extension=None, **fields):
    kind = nib.Nifti1Image if version == 1 else nib.Nifti2Image
    image = kind(np.zeros((2, 2, 2), np.uint8), np.eye(4))
    for field, value in fields.items():
        image.header[field] = value.encode()
    if extension:
        image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", extension.encode()))
    data = image.to_bytes()
    return gzip.compress(data, mtime=0) if zipped else data


IMAGES = {
    "text of a PNG": png(Comment=f"scan of {NAME}"),
    "EXIF of a PNG": with_exif("png", None, ExifTags.Base.ImageDescription, "Dr. Miller"),
    "EXIF of a JPEG": with_exif("jpeg", None, ExifTags.Base.DateTime, "2019:03:14 10:22:01"),
    "inner EXIF of a JPEG": with_exif("jpeg", ExifTags.IFD.Exif, ExifTags.Base.CameraOwnerName, "Dr. Li"),
    "comment of a JPEG": jpeg(comment=b"jane@example.org"),
    "bytes after a PNG": png() + b"MRN: 00482913",
    "bytes after a JPEG": jpeg() + b"MRN: 00482913",
    "description of a volume": nifti(descrip="doe^jane"),
    "auxiliary file of a volume": nifti(aux_file="seen 12-MAY-2019"),
    "intent of a NIfTI-2 volume": nifti(version=2, intent_name="doe^jane"),
    "description of a zipped volume": nifti(zipped=True, descrip="doe^jane"),
    "extension of a zipped volume": nifti(zipped=True, extension="PatientName: Doe"),
}


@pytest.mark.parametrize("data", IMAGES.values(), ids=IMAGES)
def test_metadata_of_images_is_scanned_in_files_and_in_rows(tmp_path, data):
    suffix = "png" if data.startswith(b"\x89PNG") else "jpg" if data[:1] == b"\xff" else "nii"
    name = f"image.{suffix}"
    (tmp_path / name).write_bytes(data)
    rows = write_rows(tmp_path, [{"volumes": [{"bytes": data, "path": None}]}])
    for file in (name, rows):
        assert scan_files(tmp_path, [file]), file


@pytest.mark.parametrize(
    "data",
    [png(Software="vividmed"), jpeg(), nifti(), nifti(zipped=True), nifti(version=2)],
    ids=["png", "jpeg", "nifti", "compressed nifti", "nifti-2"],
)
def test_images_with_ordinary_metadata_pass(tmp_path, data):
    assert scan_files(tmp_path, [write_rows(tmp_path, [{"images": [{"bytes": data}]}])]) == []


def write_table(path, schema):
    pq.write_table(pa.table([pa.array(["x"])], schema=schema), path)


def write_tensors(path, **metadata):
    save_file({"weight": np.zeros(2, np.float32)}, path, metadata=metadata)


FILES = {
    "metadata.parquet": lambda path: write_table(
        path, pa.schema([("a", pa.string())], metadata={"notes": json.dumps({"by": NAME})})
    ),
    "column.parquet": lambda path: write_table(
        path, pa.schema([pa.field("a", pa.string(), metadata={"notes": "Dr. Müller"})])
    ),
    "dates.parquet": lambda path: pq.write_table(pa.table({"a": [datetime.date(2019, 3, 14)]}), path),
    "nested.parquet": lambda path: pq.write_table(pa.table({"a": [[{"b": ["seen by Dr. Li"]}]]}), path),
    "json.parquet": lambda path: pq.write_table(pa.table({"a": [json.dumps({"b": "MÜLLER^JÜRGEN"})]}), path),
    "model.safetensors": lambda path: write_tensors(path, trained_by="Dr. Müller"),
    "nested.safetensors": lambda path: write_tensors(path, settings=json.dumps({"owner": NAME})),
    "adapter_config.json": lambda path: path.write_text(json.dumps({"base": "/home/jdoe/base"})),
    "escaped.json": lambda path: path.write_text(json.dumps({"note": "Dr. Öztürk"})),
    "repeated.json": lambda path: path.write_text('{"note": "Dr. Li", "note": "none"}'),
    "number.json": lambda path: path.write_text('{"mrn": 482913}'),
    "field.json": lambda path: path.write_text('{"scan": [{"StudyDate": "x1"}]}'),
    "tokenizer_config.json": lambda path: path.write_text(json.dumps({"path": "C:\\Users\\jdoe\\t.model"})),
    "tokenizer.json": lambda path: path.write_text(json.dumps({"added_tokens": [{"content": NAME}]})),
    "vocab.json": lambda path: path.write_text(json.dumps({NAME: 7})),
    "merges.txt": lambda path: path.write_text("a b\nMÜLLER^JÜRGEN x\n"),
    "tokenizer.model": lambda path: path.write_bytes(b"\x12\x1a/home/jdoe/reports.txt\x1a\x02"),
    "LICENSE": lambda path: path.write_text(f"key {TOKEN}"),
    "chat_template.jinja": lambda path: path.write_text("{# by Dr. Li #}"),
    "README.md": lambda path: path.write_text("Dr. M&uuml;ller"),
    "wrapped.md": lambda path: path.write_text("The scans of 14 March\n2019 were read."),
    "figure.png": lambda path: path.write_bytes(IMAGES["text of a PNG"]),
}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_that_leaves_is_scanned(tmp_path, name):
    FILES[name](tmp_path / name)
    assert scan_files(tmp_path, [name]), name


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors", b"\xff" * 40),
        ("config.json", b"{"),
        ("config.json", b"[" * 100_000),
        ("figure.png", b"\x89PNG\r\n\x1a\n broken"),
        ("notes.md", b"\xff\xfe"),
        ("image.nii.gz", b"\x1f\x8b\x08\x00broken"),
    ],
)
def test_damaged_files_end_in_one_line_that_names_them(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(VividMedError, match=name) as caught:
        scan_files(tmp_path, [name])
    assert "\n" not in str(caught.value)


def test_texts_of_this_project_pass():
    root = Path(__file__).parents[2]
    names = [
        path.relative_to(root).as_posix()
        for pattern in (
            "vividmed/processing/tiny_tokenizer/*",
            "model_cards/**/*",
            "tests/parity/data/golden_a/tokenizer/*",
        )
        for path in root.glob(pattern)
        if path.is_file()
    ]
    assert scan_files(root, names) == []
    facts = [(a.title, a.homepage, a.citation, a.licence, a.terms) for a in map(get_adapter, adapter_names())]
    assert [found for texts in facts for text in texts for found in find_identifiers(text)] == []
