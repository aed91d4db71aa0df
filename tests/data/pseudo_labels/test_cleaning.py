"""Cleaning: what the image cannot show goes, findings stay, and every change is checked."""

import pytest

from vividmed.data.pseudo_labels.cleaning import Cleaning, check_change, clean_sentence
from vividmed.data.pseudo_labels.study import Study
from vividmed.data.pseudo_labels.tagging import Tagger


@pytest.fixture(scope="module")
def tagger():
    return Tagger()


def study(text: str) -> Study:
    return Study(
        id="a",
        patient="p",
        split="train",
        modality="CT",
        plane="",
        source="s",
        licence="l",
        dataset="d",
        row=0,
        report=text,
        text=text,
    )


@pytest.mark.parametrize(
    ("sentence", "cleaned"),
    [
        # Comparisons
        ("The right effusion has increased since the prior study.", "The right effusion is present."),
        ("Compared to the previous CT of 3/4/2019, the nodule has grown.", "The nodule is present."),
        ("Compared to prior, the nodule has grown.", "The nodule is present."),
        ("In comparison with the study of ___, there is little overall change.", ""),
        ("Effusion, larger than on the prior study.", "Effusion."),
        ("The left effusion is smaller than on the previous radiograph.", "The left effusion is present."),
        ("The heart is larger than normal.", "The heart is larger than normal."),
        ("A nodule of 8 mm (previously 6 mm) in the left lung.", "A nodule of 8 mm in the left lung."),
        ("The mass measures 3.2 x 2.1 cm, previously 2.8 x 2.0 cm.", "The mass measures 3.2 x 2.1 cm."),
        ("Slight interval increase in the right basilar opacity.", "Right basilar opacity."),
        ("There is interval development of a small left effusion.", "A small left effusion."),
        ("Reduction of the fracture is anatomic.", "Reduction of the fracture is anatomic."),
        ("Unchanged position of the pacemaker leads.", "Pacemaker leads."),
        ("Stable cardiomegaly.", "Cardiomegaly."),
        ("A 6 mm nodule is unchanged.", "A 6 mm nodule."),
        ("No significant interval change.", ""),
        ("The previously seen nodule measures 5 mm.", "The nodule measures 5 mm."),
        ("Heart size is stable.", ""),
        # Technique, views and history
        ("PA and lateral views of the chest were obtained.", ""),
        ("Axial images were acquired after administration of contrast.", ""),
        ("The patient is a 60-year-old man with cough.", ""),
        ("Comparison: none.", ""),
        ("No prior studies available for comparison.", ""),
        # Recommendations and communication
        ("Recommend follow-up CT in 3 months to document stability.", ""),
        ("Findings were discussed with Dr. Smith by telephone at 3:15 pm.", ""),
        # Verbatim
        ("There is a small left pleural effusion.", "There is a small left pleural effusion."),
        ("No pneumothorax or rib fracture.", "No pneumothorax or rib fracture."),
        ("PA and lateral views show no pneumothorax.", "PA and lateral views show no pneumothorax."),
        ("Liver, spleen and kidneys are normal.", "Liver, spleen and kidneys are normal."),
    ],
)
def test_rules_remove_what_the_image_cannot_show_and_keep_the_rest(tagger, sentence, cleaned):
    assert clean_sentence(sentence, tagger) == cleaned


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ("A left effusion. The heart is normal.", "The heart is normal.", "a finding was lost"),
        ("A left effusion is seen here.", "A right effusion is seen here.", "a finding was lost"),
        ("Possible pneumonia at the base.", "Pneumonia at the base.", "a finding was lost"),
        ("The lungs are clear today.", "The lungs are clear. A nodule.", "a finding was added"),
        ("A nodule of 5 mm is seen.", "A nodule of 15 mm is seen.", "a number was added"),
        ("A 5 mm nodule. A 9 mm cyst.", "A 9 mm nodule. A 5 mm cyst.", "was added or moved"),
        ("Scar of the left apex here.", "Scar of the right apex here.", "was added or moved"),
        ("A mild left effusion is seen.", "A severe left effusion is seen.", "was added or moved"),
        ("One two three four.", "", "nothing is left"),
        ("One two three four five.", "Six seven eight nine ten.", "of the words changed"),
        ("No effusion. No edema. Lungs clear.", "No effusion. Lungs clear.", "was lost: edema (absent)"),
        ("History: no known pneumonia. Lungs clear. Heart normal.", "Lungs clear. Heart normal.", ""),
    ],
)
def test_changes_that_lose_or_add_something_do_not_count(tagger, before, after, problem):
    found = check_change(before, after, tagger=tagger).problem
    assert (problem in found) if problem else found == ""


def test_sections_stay_sections_and_a_report_of_technique_keeps_its_findings(tagger):
    text = (
        "Findings: Frontal view. The left effusion has increased since the prior study. The spine is normal.\n"
        "Impression: Worsening left effusion."
    )
    (cleaned,) = Cleaning(tagger=tagger).run([study(text)])
    assert cleaned.text == (
        "Findings: The left effusion is present. The spine is normal.\nImpression: Left effusion."
    )
    assert cleaned.report == text


def test_a_report_that_would_lose_too_much_stays_and_is_listed(tagger):
    text = "The patient has a cough. The patient was examined supine. Clear."
    (cleaned,) = Cleaning(tagger=tagger, largest_change=0.3).run([study(text)])
    assert cleaned.text == text
    assert [reject.step for reject in cleaned.rejects] == ["clean"]
