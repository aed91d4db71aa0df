import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from vividmed.data.conversations import build_conversation, sample_generator
from vividmed.data.conversations.settings import (
    ConversationSettings,
    GroundedReportSettings,
    LocalizationSettings,
    VisionLanguageSettings,
)
from vividmed.data.conversations.templates import wordings
from vividmed.data.taxonomy import Taxonomy
from vividmed.errors import VividMedError
from vividmed.processing.grounded_text import parse_grounded_text
from vividmed.processing.messages import turns_from_messages

PLAIN = LocalizationSettings(grounding=1.0, mark_absent=0.0, modality=0.0)


def localization(present=(), absent=(), boxed=(), **values):
    return {
        "id": "case-1",
        "modality": "CT",
        "targets": [*present, *boxed],
        "absent": list(absent),
        "masks": [{"target": name} for name in present],
        "boxes": [{"target": name} for name in boxed],
    } | values


def vision_language(kind, *texts, modality="X-ray", plane="PA"):
    roles = ("user", "assistant") * (len(texts) // 2)
    messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]
    return {"id": "study-1", "modality": modality, "plane": plane, "messages": messages, "kind": kind}


def grounded(marked, *targets, masks=(), boxes=()):
    spans = [(m.start(), m.group(1)) for m in re.finditer(r"<p>(.*?)</p>", marked)]
    phrases = []
    for number, ((place, text), names) in enumerate(zip(spans, targets, strict=True)):
        start = place - 7 * number
        phrases.append({"text": text, "start": start, "end": start + len(text), "targets": list(names)})
    return {
        "id": "report-1",
        "modality": "CT",
        "report": marked,
        "phrases": phrases,
        "masks": [{"target": name} for name in masks],
        "boxes": [{"target": name} for name in boxes],
    }


def draw(row_kind, row, index=0, **settings):
    generator = sample_generator(seed=3, epoch=0, index=index)
    return build_conversation(row_kind, row, generator=generator, settings=ConversationSettings(**settings))


def answers(conversation):
    return [message["content"] for message in conversation.messages[1::2]]


def questions(conversation):
    return [message["content"] for message in conversation.messages[::2]]


def canonical(terms):
    return {Taxonomy.load()[term].name for term in terms}


def test_grounded_answers_have_the_published_form():
    row = localization(["liver", "spleen"], ["gallbladder"])
    for index in range(30):
        (answer,) = answers(draw("localization", row, index, localization=PLAIN))
        items = re.fullmatch(r"Results:(.*)\.", answer)[1].split(",")
        assert len(items) == 3
        for item in items:
            assert re.fullmatch(r"<p> [^<>]+</p>: yes| [^<>]+: no", item)


def test_plain_answers_have_no_markers_and_no_phrases():
    row = localization(["liver"], ["gallbladder"])
    conversation = draw("localization", row, localization=replace(PLAIN, grounding=0.0))
    assert not conversation.grounding
    assert conversation.phrases == []
    (answer,) = answers(conversation)
    assert re.fullmatch(r"Results:( [^<>,:]+: (yes|no),?){2}\.", answer)


def test_phrases_stand_for_the_terms_of_the_answer_in_order():
    row = localization(["liver", "left kidney", "aorta"], ["gallbladder", "spleen"], boxed=["lung nodule"])
    for index in range(30):
        conversation = draw("localization", row, index, localization=replace(PLAIN, mark_absent=0.5))
        marked = re.findall(r"<(n?)p> (.*?)</n?p>", "".join(answers(conversation)))
        assert [phrase.text for phrase in conversation.phrases] == [text for _, text in marked]
        assert [phrase.present for phrase in conversation.phrases] == [not negative for negative, _ in marked]
        for phrase in conversation.phrases:
            (target,) = phrase.targets
            assert target == Taxonomy.load()[phrase.text].name
            assert phrase.present == (target in row["targets"])
            assert phrase.label_type == ("box" if target == "lung nodule" else "mask")
            assert phrase.labelled


def test_only_annotated_targets_are_asked_for():
    row = localization(["liver", "left lung"], ["spleen", "pneumothorax"])
    for index in range(50):
        conversation = draw("localization", row, index)
        listed = re.findall(r"([^:,<>]+?)(?:</n?p>)?: (?:yes|no)", "".join(answers(conversation)))
        assert canonical(listed or ["liver"]) <= {"liver", "left lung", "spleen", "pneumothorax"}


def test_anatomy_is_asked_for_before_anomalies_and_within_the_limits():
    taxonomy = Taxonomy.load()
    anatomy = [target.name for target in taxonomy if target.category == "anatomy"]
    anomalies = [target.name for target in taxonomy if target.category == "anomaly"]
    row = localization([*anatomy[:30], *anomalies[:30]], [*anatomy[30:50], *anomalies[30:50]])
    first, second = answers(draw("localization", row, localization=PLAIN))
    for answer, names in ((first, anatomy), (second, anomalies)):
        assert answer.count(": yes") == 12
        assert answer.count(": no") == 4
        assert canonical(re.findall(r"<p> (.*?)</p>", answer)) <= set(names)


def test_marked_absent_targets_ground_in_nothing():
    row = localization(["liver"], ["spleen", "gallbladder"])
    conversation = draw("localization", row, localization=replace(PLAIN, mark_absent=1.0))
    assert sorted(phrase.present for phrase in conversation.phrases) == [False, False, True]
    assert answers(conversation)[0].count("<np> ") == 2


def test_absent_targets_of_a_row_without_labels_are_marked_only_if_their_form_is_known():
    row = localization([], ["pneumothorax"])
    settings = replace(PLAIN, mark_absent=1.0)
    assert draw("localization", row, localization=settings).phrases == []
    (phrase,) = draw("localization", row, localization=replace(settings, absent_label_type="box")).phrases
    assert phrase.label_type == "box"
    assert not phrase.present


def test_open_question_names_every_anomaly_that_is_present():
    row = localization(["glioma", "peritumoral edema", "brain"], ["lung nodule"])
    for index in range(20):
        conversation = draw("localization", row, index, localization=replace(PLAIN, open_anomalies=1.0))
        _, opened, listed = answers(conversation)
        assert re.fullmatch(r"Results: <p> [^<]+</p>,<p> [^<]+</p>\.", opened)
        assert canonical(re.findall(r"<p> (.*?)</p>", opened)) == {"glioma", "peritumoral edema"}
        assert re.fullmatch(r"Results: [^<]+: no\.", listed)


def test_open_question_about_a_normal_image_is_answered_in_words():
    row = localization(["brain"], ["glioma"])
    settings = replace(PLAIN, open_anomalies=1.0)
    seen = {answers(draw("localization", row, index, localization=settings))[1] for index in range(60)}
    assert len(seen) > 10
    assert seen <= set(wordings("no_anomaly"))


def test_open_question_is_not_asked_where_anomalies_are_not_all_annotated():
    row = localization(["glioma"], [])
    assert all(
        ": yes" in answers(draw("localization", row, index, localization=PLAIN))[0] for index in range(30)
    )


def test_modality_comes_first_and_always_where_there_is_nothing_else():
    conversation = draw("localization", localization(["liver"]), localization=replace(PLAIN, modality=1.0))
    assert answers(conversation)[0] == "The modality of this image is CT."
    conversation = draw("localization", localization(), localization=PLAIN)
    assert answers(conversation) == ["The modality of this image is CT."]


def test_unknown_target_is_refused_with_row_and_near_names():
    with pytest.raises(VividMedError, match=r"row case-1: target 'livver' .*did you mean 'liver'"):
        draw("localization", localization(["livver"]))


def test_row_without_anything_to_ask_is_refused():
    with pytest.raises(VividMedError, match="row case-1: it has neither targets nor a modality"):
        draw("localization", localization(modality=None))


def test_published_probabilities_hold():
    row = localization(["liver"], ["spleen"])
    drawn = [draw("localization", row, index) for index in range(1500)]
    assert 0.97 < np.mean([c.grounding for c in drawn]) < 1.0
    assert 0.16 < np.mean(["<np>" in answers(c)[-1] for c in drawn]) < 0.24
    assert 0.76 < np.mean([len(c.messages) == 4 for c in drawn]) < 0.84


def test_sample_depends_on_seed_epoch_and_index_only():
    row = localization(["liver", "left kidney", "rib"], ["spleen"])

    def draw(**place):
        return build_conversation("localization", row, generator=sample_generator(**place))

    place = {"seed": 1, "epoch": 2, "index": 3}
    first = draw(**place)
    np.random.seed(0)
    assert draw(**place) == first
    assert all(draw(**{**place, key: 9}) != first for key in place)


def test_report_is_asked_for_in_words_that_suit_its_sections():
    full = "Findings: Clear lungs.\nImpression: Normal."
    for answer, topic in (
        (full, "report"),
        ("Findings: Clear.", "findings"),
        ("CT of the chest.", "plain_report"),
    ):
        row = vision_language("report", "Report.", answer, modality="CT")
        settings = VisionLanguageSettings(modality=0.0, plane=0.0)
        conversation = draw("vision_language", row, vision_language=settings)
        assert answers(conversation) == [answer]
        words = ("image", "medical image", "scan", "medical scan", "imaging study")
        wanted = {template.format(image=image).lower() for template in wordings(topic) for image in words}
        assert questions(conversation)[0].lower() in wanted
        assert not conversation.grounding


def test_modality_and_plane_are_asked_first_in_either_order():
    row = vision_language("caption", "Caption.", "A chest radiograph.")
    settings = VisionLanguageSettings(modality=1.0, plane=1.0)
    orders = Counter()
    for index in range(40):
        *front, caption = answers(draw("vision_language", row, index, vision_language=settings))
        assert caption == "A chest radiograph."
        orders[tuple(front)] += 1
    modality, plane = "The modality of this image is X-ray.", "The plane of this image is PA."
    assert set(orders) == {(modality, plane), (plane, modality)}


def test_what_the_row_asks_itself_is_not_asked_twice():
    row = vision_language("modality", "Which modality?", "The modality of this image is X-ray.", plane=None)
    settings = VisionLanguageSettings(modality=1.0, plane=1.0)
    assert len(draw("vision_language", row, vision_language=settings).messages) == 2


def test_free_questions_keep_their_words_and_change_their_order():
    pairs = [("Q1?", "A1"), ("Q2?", "A2"), ("Q3?", "A3")]
    row = vision_language("vqa", *[text for pair in pairs for text in pair])
    settings = VisionLanguageSettings(modality=0.0, plane=0.0)
    orders = set()
    for index in range(60):
        conversation = draw("vision_language", row, index, vision_language=settings)
        orders.add(tuple(zip(questions(conversation), answers(conversation), strict=True)))
    assert len(orders) == 6
    assert all(sorted(order) == pairs for order in orders)


def test_list_of_findings_keeps_its_statements_with_other_names_and_order():
    row = vision_language("presence", "?", "Results: cardiomegaly: yes, edema: uncertain, pneumothorax: no.")
    settings = VisionLanguageSettings(modality=0.0, plane=0.0)
    seen = set()
    for index in range(40):
        conversation = draw("vision_language", row, index, vision_language=settings)
        (answer,) = answers(conversation)
        seen.add(answer)
        pairs = [item.split(": ") for item in answer.removeprefix("Results: ").rstrip(".").split(", ")]
        assert {Taxonomy.load()[term].name: state for term, state in pairs} == {
            "cardiomegaly": "yes",
            "edema": "uncertain",
            "pneumothorax": "no",
        }
        assert "uncertain" in questions(conversation)[0]
    assert len(seen) > 20


def test_list_in_another_form_is_left_as_it_is():
    row = vision_language("presence", "Is there a fracture?", "No.", modality=None, plane=None)
    assert draw("vision_language", row).messages == row["messages"]


def test_row_with_report_and_list_gives_one_of_them():
    row = vision_language("report+presence", "R", "Findings: x.", "P", "Results: edema: yes.", plane=None)
    settings = VisionLanguageSettings(modality=0.0)
    firsts = Counter(
        answers(draw("vision_language", row, index, vision_language=settings))[0].split(":")[0]
        for index in range(400)
    )
    assert sum(firsts.values()) == 400
    assert 0.14 < firsts["Results"] / 400 < 0.26
    assert firsts["Findings"] + firsts["Results"] == 400


REPORT = (
    "Findings: A small <p>left pleural effusion</p> and <p>clear lungs</p>.\nImpression: <p>Effusion</p>."
)


def test_grounded_report_marks_every_phrase_and_labels_those_with_targets():
    row = grounded(REPORT, ["pleural effusion"], [], ["pleural effusion"], masks=["pleural effusion"])
    conversation = draw("grounded_report", row, grounded_report=GroundedReportSettings(grounding=1.0))
    assert conversation.grounding
    (answer,) = answers(conversation)
    assert answer.startswith("Findings: A small<p> left pleural effusion</p> and<p> clear lungs</p>.")
    parsed = parse_grounded_text(answer)
    assert [phrase.text for phrase in parsed.phrases] == [phrase.text for phrase in conversation.phrases]
    assert parsed.text == REPORT.replace("<p>", "").replace("</p>", "")
    assert [phrase.label_type for phrase in conversation.phrases] == ["mask", None, "mask"]
    assert [phrase.labelled for phrase in conversation.phrases] == [True, False, True]


def test_grounded_report_without_grounding_is_plain():
    row = grounded(REPORT, [], [], [])
    conversation = draw("grounded_report", row, grounded_report=GroundedReportSettings(grounding=0.0))
    assert "<p>" not in answers(conversation)[0]
    assert conversation.phrases == []
    assert not conversation.grounding


def test_labels_beyond_the_limit_are_dropped_at_random_and_markers_stay():
    count = 20
    marked = "Findings: " + ", ".join(f"<p>nodule {i}</p>" for i in range(count)) + "."
    row = grounded(
        marked,
        *[[f"lung nodule #{i}"] for i in range(count)],
        boxes=[f"lung nodule #{i}" for i in range(count)],
    )
    kept = Counter()
    for index in range(40):
        conversation = draw(
            "grounded_report", row, index, grounded_report=GroundedReportSettings(grounding=1.0)
        )
        assert answers(conversation)[0].count("<p>") == count
        labelled = [i for i, phrase in enumerate(conversation.phrases) if phrase.label_type == "box"]
        assert len(labelled) == 12
        kept.update(labelled)
    assert len(kept) == count


def test_unknown_kind_of_row_is_refused():
    with pytest.raises(VividMedError, match="'report' is not a kind of row"):
        draw("report", localization(["liver"]))


def test_conversations_are_what_the_processor_takes():
    row = localization(["liver", "lung nodule"], ["spleen"])
    for index in range(20):
        conversation = draw("localization", row, index)
        assert turns_from_messages(conversation.messages, grounding=conversation.grounding)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grounding": 1.5}, "grounding is 1.5; give a probability"),
        ({"max_present": -1}, "max_present is -1; give a whole number"),
        ({"max_absent": 2.0}, "max_absent is 2.0; give a whole number"),
        ({"modality": True}, "modality is True"),
        ({"absent_label_type": "circle"}, "absent_label_type is 'circle'"),
        ({"grounded": 1.0}, "vg.yaml: 'grounded' is not a setting; use max_present"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(VividMedError, match=message):
        LocalizationSettings.from_mapping(settings, where="vg.yaml")


def test_question_for_the_modality_does_not_give_it_away():
    row = vision_language("caption", "Caption.", "A radiograph.")
    settings = VisionLanguageSettings(modality=1.0, plane=1.0)
    for index in range(60):
        front = questions(draw("vision_language", row, index, vision_language=settings))[:2]
        assert not re.search("radiograph|X-ray|scan", " ".join(front))


def test_space_that_markers_take_in_belongs_to_no_phrase():
    """Rows of the published sets write ``a<p> nodule</p>``, and their phrases have the space."""
    report = "Findings: There is a<p> small nodule</p>, and<p> cyst</p>."
    row = grounded(report, [], [])
    plain = report.replace("<p>", "").replace("</p>", "")
    row["phrases"] = [
        {"text": text, "start": plain.index(text), "end": plain.index(text) + len(text), "targets": []}
        for text in (" small nodule", " cyst")
    ]
    conversation = draw("grounded_report", row, grounded_report=GroundedReportSettings(grounding=1.0))
    assert conversation.messages[-1]["content"] == report
    assert [phrase.text for phrase in conversation.phrases] == ["small nodule", "cyst"]
