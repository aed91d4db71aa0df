import pytest

from vividmed.data.raw.grounded_sentences import mark_sentences
from vividmed.data.raw.report_text import (
    ReportText,
    clean_text,
    clean_whitespace,
    cut_notification,
    drop_placeholders,
    mentions_past,
    parse_report,
    report_from_sections,
    section_name,
    split_sections,
    split_sentences,
    view_name,
)

REPORT = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  Cough.  Question pneumonia.

 FINDINGS:

 The heart is of normal size.  There is a small left pleural
 effusion.  No pneumothorax.  The bones are unremarkable.

 IMPRESSION:

 1.  Small left pleural effusion.
 2.  No pneumothorax.  Findings were discussed with Dr. ___ by phone at 3 p.m.
"""


def named(report: str) -> list[tuple[str, str]]:
    return [(section.name, clean_whitespace(section.text)) for section in split_sections(report)]


def test_report_is_cut_at_its_headers():
    sections = named(REPORT)
    assert [name for name, _ in sections] == [
        "preamble",
        "examination",
        "indication",
        "findings",
        "impression",
    ]
    assert sections[2] == ("indication", "Cough. Question pneumonia.")
    assert sections[3][1].startswith("The heart is of normal size.")


def test_start_of_a_section_points_at_its_text():
    for section in split_sections(REPORT):
        assert REPORT[section.start :].startswith(section.text)


def test_lines_that_only_resemble_headers_are_text():
    report = (
        "\n FINDINGS: Clear lungs.\n Heart: normal.\nIMPRESSION: not indented\n NOTE 2: digits\n END:no space"
    )
    assert [name for name, _ in named(report)] == ["preamble", "findings"]


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("FINDINGS", "findings"),
        ("FINDINGS AND IMPRESSION", "impression"),
        ("CONCLUSION", "impression"),
        ("IMPRESSON", "impression"),
        ("MPRESSION", "impression"),
        ("FINDNGS", "findings"),
        ("FINDING", "findings"),
        ("INDICATOIN", "indication"),
        ("COMPARISIONS", "comparison"),
        ("REASON FOR EXAM", "indication"),
        ("CLINICAL INFORMATION", "history"),
        ("FINAL IMPRESSION", "impression"),
        ("CHEST, TWO VIEWS", "findings"),
        ("PORTABLE CHEST", "findings"),
        ("PA AND LATERAL VIEWS OF THE CHEST", "findings"),
        ("BILATERAL RIBS", "bilateral ribs"),
        ("RIBS", "findings"),
        ("DOSE", "dose"),
    ],
)
def test_headers_have_standard_names(header, name):
    assert section_name(header) == name


def test_without_findings_and_impression_the_text_after_the_first_blank_line_is_kept_apart():
    report = "\n INDICATION: Cough.\n\n The lungs are clear.\n\n Heart normal.\n"
    assert named(report) == [
        ("preamble", ""),
        ("indication", "Cough."),
        ("last_paragraph", "The lungs are clear. Heart normal."),
    ]


def test_empty_findings_do_not_count():
    assert [name for name, _ in named("\n FINDINGS: \n IMPRESSION: Normal chest.")] == [
        "preamble",
        "impression",
    ]


def test_last_findings_and_impression_are_taken():
    report = "\n FINDINGS: first\n IMPRESSION: one\n ADDENDUM: x\n FINDINGS: second\n IMPRESSION: two\n"
    assert report_from_sections(split_sections(report)) == ReportText("second", "two")


def test_published_form_is_written_and_read_back():
    report = report_from_sections(split_sections(REPORT))
    assert report.impression == "1. Small left pleural effusion. 2. No pneumothorax."
    assert report.is_complete
    text = str(report)
    assert text.startswith("Findings: The heart")
    assert "\nImpression: 1. Small" in text
    assert parse_report(text) == report
    assert parse_report("Findings: clear.") == ReportText("clear.", "")
    assert parse_report("The lungs are clear.") is None


def test_short_reports_are_incomplete():
    assert not ReportText("Lungs are clear.", "Normal chest.").is_complete
    assert not ReportText("word " * 10, "Normal.").is_complete
    assert ReportText("word " * 10, "Normal chest.").is_complete


def test_notes_on_communication_end_the_impression():
    assert cut_notification("No effusion. Dr. Smith was paged at noon. Stable.") == "No effusion."
    assert cut_notification("Edema. Results were communicated by telephone.") == "Edema."
    assert cut_notification("1. Edema. 2. Discussed with Dr. Who.") == "1. Edema."
    assert cut_notification("Edema. Reported 10 minutes after discovery.") == "Edema."


def test_clinical_words_that_resemble_notes_stay():
    text = "Drain in place. Drug reaction is possible. Communicating hydrocephalus. Observation is advised."
    assert cut_notification(text) == text


def test_titles_do_not_end_sentences():
    assert split_sentences("Seen by Dr. Who. Clear lungs.") == ["Seen by Dr. Who.", "Clear lungs."]


def test_sentences_with_removed_words_are_dropped():
    assert drop_placeholders("Heart XXXX normal. Lungs are clear. Seen on ___.") == "Lungs are clear."


def test_mentions_of_the_past_are_found_as_whole_words():
    assert mentions_past("Compared to the previous study, unchanged.")
    assert mentions_past("Interval increase of the effusion.")
    assert not mentions_past("Small nodules in the priority region; renewal of bone.")


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("PA", "PA"),
        ("LATERAL", "lateral"),
        ("ap axial", "AP axial"),
        ("SWIMMERS", "Swimmer's"),
        ("XTABLE  LATERAL", "cross-table lateral"),
        ("PA LLD", "PA LLD"),
        ("Frontal", "frontal"),
        ("Axial", "axial"),
        ("", None),
        (None, None),
        ("upside down", None),
    ],
)
def test_views_and_planes_have_standard_names(value, name):
    assert view_name(value) == name


@pytest.mark.parametrize(
    "text",
    [
        "Not given.",
        "not given",
        "NOT GIVEN.",
        "N/A",
        "n.a.",
        "None.",
        "nan",
        "NULL",
        "-",
        "...",
        "",
        " \n ",
        None,
        "Not available.",
        "not provided",
        "Not applicable",
        "(not stated)",
        "[No report]",
        "Unknown.",
        "pending",
        "Findings: not given.",
        "Impression was not provided.",
        "Not given. N/A.",
        "XXXX",
        "___",
        "See above.",
        "No findings given.",
        "As above.",
        float("nan"),
    ],
)
def test_texts_that_only_say_that_nothing_was_given_are_empty(text: object):
    assert clean_text(text) == ""


@pytest.mark.parametrize(
    "text",
    [
        "None of the lungs is affected.",
        "Normal.",
        "No acute findings.",
        "No findings.",
        "Unknown mass in the liver.",
        "Not given. The heart is enlarged.",
        "Contrast was not given.",
        "X-ray normal.",
        "Missing left kidney.",
        "No pneumothorax.",
        "12",
        "Na 140 mmol/l",
    ],
)
def test_texts_that_say_something_stay(text: str):
    assert clean_text(f" {text}\n") == text


LONG = 100_000


@pytest.mark.parametrize(
    "text",
    [
        "Dr. A " * (LONG // 6),
        "Dr. " * (LONG // 4),
        "A. " * (LONG // 3),
        "." * LONG,
        " " * LONG + "x",
        ". " * (LONG // 2) + "a",
        "approx." * (LONG // 7),
        "No. 1 " * (LONG // 6),
        "\n" * LONG,
        "was " * (LONG // 4),
    ],
    ids=lambda text: repr(text[:8]),
)
def test_hostile_texts_of_100_000_letters_are_read_in_linear_time(text: str):
    # A quadratic step would take minutes: these only return if there is none.
    assert "".join("".join(split_sentences(text)).split()) == "".join(text.split())
    cut_notification(text)
    drop_placeholders(text)
    clean_text(text)
    mark_sentences([(text, ["liver"])])
    for head in ("Findings:", "\n" * 1000 + "Findings: a"):
        assert parse_report(head + text) is not None
    report_from_sections(split_sections(f"\n FINDINGS:{text}\n IMPRESSION: {text}"))


@pytest.mark.parametrize("blank", ["\n" * LONG, "\n " * (LONG // 2), " \n" * (LONG // 2)])
def test_the_impression_is_found_after_100_000_blank_lines(blank: str):
    assert parse_report(f"Findings: a{blank}\n Impression: b") == ReportText("a", "b")
