"""Language models that tag: a scripted endpoint that does everything wrong, and a local model."""

import json
import socket
import struct
import time
from dataclasses import replace

import pytest

from tests.data.pseudo_labels.test_cleaning import study
from tests.fixtures.grounded_reports import CREDENTIALED, OPEN, endpoint
from vividmed.data.pseudo_labels.cleaning import Cleaning
from vividmed.data.pseudo_labels.endpoint import Endpoint, check_address, is_private, quote_of
from vividmed.data.pseudo_labels.filtering import Filtering
from vividmed.data.pseudo_labels.prompts import tagging_prompt
from vividmed.data.pseudo_labels.tagging_step import Tagging, read_links, split_parts
from vividmed.errors import VividMedError

REPORT = "A small left pleural effusion. No pneumothorax. The liver is normal."
RIGHT = "A [small left pleural effusion](pleural effusion). No pneumothorax. The [liver](liver) is normal."


def hang(handler):
    time.sleep(1.0)


def trickle(handler):
    handler.send_response(200)
    handler.end_headers()
    for _ in range(20):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.1)


def ask_for_time(handler):
    handler.send_response(429)
    handler.send_header("Retry-After", "7")
    handler.send_header("Content-Length", "0")
    handler.end_headers()


def reset(handler):
    """Close the connection with a reset in the middle of the answer."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True
    handler.connection.close()


def break_off(handler):
    """Announce more than is sent."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [{"message": {"content": "A [small')
    handler.close_connection = True


def completion(content):
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": content}}]}).encode()


BAD = {
    "a dropped sentence": RIGHT.replace("No pneumothorax. ", ""),
    "a changed word": RIGHT.replace("normal", "abnormal"),
    "another side": RIGHT.replace("left", "right"),
    "sentences in another order": RIGHT.replace("No pneumothorax. ", "") + " No pneumothorax.",
    "words joined": RIGHT.replace("No pneumothorax", "Nopneumothorax"),
    "a page": b"<!doctype html><title>Welcome</title>",
    "a stream": b'data: {"choices": [{"delta": {"content": "A"}}]}\n\ndata: [DONE]\n\n',
    "an apology": "I'm sorry, but I cannot process medical records.",
    "an added sentence": RIGHT + " A [nodule](lung nodule).",
    "prose": "Sure! Here is the report with links.",
    "markup": "<html><body>502 Bad Gateway</body></html>",
    "an empty answer": "",
    "bytes": b"\xff\xfe\x00nonsense",
    "json of another form": b'{"error": "overloaded"}',
    "deep json": b"[" * 5000,
    "nested links": "A [small [left](left lung) pleural effusion](pleural effusion). No pneumothorax. The liver is normal.",
    "a truncated answer": RIGHT[:60],
    "truncated json": b'{"choices": [{"message": {"content": "A [small',
    "no content": completion(None),
    "content of another type": completion([{"type": "text", "text": RIGHT}]),
    "no choices": b'{"choices": []}',
    "numbers": b"42",
    "a report twice": f"{RIGHT} {RIGHT}",
    "half a character": completion("A small \ud800"),
    "other characters": RIGHT.replace("A [", "\u0410 ["),
    "links across everything": f"[{REPORT}](pleural effusion) and more",
    "a refusal": 422,
    "no answer": hang,
    "an answer that trickles in": trickle,
}


def tag(url: str, report: str = REPORT, timeout: float = 0.4):
    model = Endpoint(url, "scripted", timeout=timeout, batch_size=2)
    (tagged,) = Filtering().run(Tagging(model).run([study(report)]))
    return tagged


def usable(tagged):
    return {(each.text, each.target) for each in tagged.phrases if each.verdict == "agreed"}


@pytest.mark.parametrize("answer", BAD.values(), ids=BAD.keys())
def test_answers_that_change_the_report_are_asked_for_once_more_and_then_replaced_by_the_rules(answer):
    with endpoint(lambda messages, number: answer) as (url, seen):
        tagged = tag(url)
    assert tagged.text == REPORT
    assert usable(tagged) == {("small left pleural effusion", "pleural effusion"), ("liver", "liver")}
    assert {each.tagger for each in tagged.phrases} == {"rules"}
    assert "tagged by rules instead" in [reject.reason for reject in tagged.rejects]
    assert len(seen) == 2


@pytest.mark.parametrize(
    "answer", [500, 503, 429, break_off, reset], ids=["500", "503", "429", "broken off", "reset"]
)
def test_an_endpoint_in_trouble_is_asked_again_and_then_replaced_by_the_rules(answer, monkeypatch):
    monkeypatch.setattr("vividmed.data.pseudo_labels.endpoint._PAUSES", (0.0, 0.0, 0.0))
    with endpoint(lambda messages, number: answer) as (url, seen):
        tagged = tag(url)
    assert usable(tagged) == {("small left pleural effusion", "pleural effusion"), ("liver", "liver")}
    assert {each.tagger for each in tagged.phrases} == {"rules"}
    assert len(seen) == 6
    with endpoint(lambda messages, number: RIGHT if number == 3 else answer) as (url, _):
        assert {each.tagger for each in tag(url).phrases} == {"scripted"}


@pytest.mark.parametrize(("largest", "waited"), [(60.0, 7.0), (2.0, 2.0)])
def test_an_endpoint_that_asks_for_time_gets_it(largest, waited, monkeypatch):
    pauses = []
    monkeypatch.setattr("vividmed.data.pseudo_labels.endpoint._LONGEST_PAUSE", largest)
    monkeypatch.setattr("vividmed.data.pseudo_labels.endpoint.time.sleep", pauses.append)
    with endpoint(lambda messages, number: ask_for_time if number == 1 else RIGHT) as (url, _):
        assert {each.tagger for each in tag(url).phrases} == {"scripted"}
    assert pauses[:2] == [0.0, waited]


@pytest.mark.parametrize(
    "answer",
    [
        BAD["prose"],
        BAD["bytes"],
        BAD["an empty answer"],
        BAD["truncated json"],
        completion(REPORT + " \ud800"),
    ],
)
def test_cleaning_and_filtering_survive_bad_answers(answer):
    with endpoint(lambda messages, number: answer) as (url, _):
        model = Endpoint(url, "scripted", timeout=5.0)
        (cleaned,) = Cleaning(model).run([study(REPORT)])
        (filtered,) = Filtering(model).run(Tagging().run([cleaned]))
    assert filtered.text == REPORT
    assert {phrase.target for phrase in filtered.phrases} == {"pleural effusion", "liver"}
    assert len(filtered.rejects) >= 4


@pytest.mark.parametrize(
    ("links", "kept"),
    [
        ({"liver": "pneumothorax"}, set()),  # invented: the rules read something else
        ({"normal": "lung nodule"}, set()),  # invented: the rules read nothing
        ({"pneumothorax": "pneumothorax"}, set()),  # negated
        ({"liver": "Hogwarts"}, set()),  # no such target
        (
            {"small left pleural effusion": "Pleural Fluid"},
            {("small left pleural effusion", "pleural effusion")},
        ),
    ],
)
def test_links_count_only_where_the_rules_read_the_same(links, kept):
    answer = REPORT
    for words, target in links.items():
        answer = answer.replace(words, f"[{words}]({target})")
    with endpoint(lambda messages, number: answer) as (url, _):
        tagged = tag(url)
    of_model = {(each.text, each.target) for each in tagged.phrases if each.tagger != "rules"}
    assert {pair for pair in usable(tagged) if pair in of_model} == kept


def test_an_accepted_answer_at_the_second_attempt_counts():
    with endpoint(lambda messages, number: "nonsense" if number == 1 else RIGHT) as (url, seen):
        tagged = tag(url)
    assert usable(tagged) == {("small left pleural effusion", "pleural effusion"), ("liver", "liver")}
    assert {each.tagger for each in tagged.phrases} == {"scripted"}
    assert [reject.reason for reject in tagged.rejects if reject.step == "tag"] == ["the text was changed"]
    assert "cannot be used" in seen[1][-1]["content"]


def test_a_question_is_not_asked_again(tmp_path):
    with endpoint(lambda messages, number: RIGHT) as (url, seen):
        for _ in range(2):
            step = Tagging(Endpoint(url, "scripted"))
            step.open(tmp_path / "answers.jsonl")
            step.run([study(REPORT)])
    assert len(seen) == 1


@pytest.mark.parametrize("status", [301, 302, 401, 403, 404])
def test_a_wrong_address_stops_the_run_with_one_line(status):
    with (
        endpoint(lambda messages, number: status) as (url, _),
        pytest.raises(VividMedError, match=str(status)),
    ):
        tag(url)


def test_an_endpoint_that_is_not_there_stops_the_run():
    with endpoint(lambda messages, number: RIGHT) as (url, _):
        pass
    with pytest.raises(VividMedError, match="cannot be reached"):
        tag(url)


def test_a_model_that_cleans_may_not_lose_a_finding():
    report = "Findings: A left effusion since yesterday, compared to before. The patient coughs."
    answers = {
        "Findings: The lungs are clear.": False,
        "Findings: A left effusion.": True,
        "A left effusion.": False,  # the heading went
    }
    for answer, accepted in answers.items():
        with endpoint(lambda messages, number, answer=answer: answer) as (url, _):
            (cleaned,) = Cleaning(Endpoint(url, "scripted"), largest_change=0.9).run([study(report)])
        assert (cleaned.text == answer) == accepted


def test_a_model_that_filters_can_only_take_links_off():
    tagged = Filtering().run(Tagging().run([study(REPORT)]))[0]
    for answer, left in {
        "A small left pleural effusion. No pneumothorax. The [liver](liver) is normal.": {"liver"},
        "A small left pleural effusion. No [pneumothorax](pneumothorax). The liver is normal.": {
            "pleural effusion",
            "liver",
        },
        "A [small left pleural effusion](lung nodule). No pneumothorax. The [liver](liver) is normal.": {
            "pleural effusion",
            "liver",
        },
    }.items():
        with endpoint(lambda messages, number, answer=answer: answer) as (url, _):
            (filtered,) = Filtering(Endpoint(url, "scripted")).run([replace(tagged, rejects=())])
        assert {phrase.target for phrase in filtered.phrases} == left


@pytest.mark.parametrize(
    ("answer", "text", "spans"),
    [
        ("[a b](liver) c", "a b c", [("a b", "liver")]),
        ("[a  b](liver)\nc", "a b c", [("a b", "liver")]),
        ("```\n[a](liver) b\n```", "a b", [("a", "liver")]),
        ("size [12 mm] of [a](liver)", "size [12 mm] of a", [("a", "liver")]),
        ("a b", "a b", []),
        ("ab", "a b", None),
        ("fove\u0301a", "fov\u00e9a", None),
        ("[a](b)", "[a](b)", None),
        ("[](liver) a", "a", []),
    ],
)
def test_links_are_read_as_characters_of_the_text(answer, text, spans):
    links = read_links(answer, text)
    found = None if links is None else [(text[link.start : link.end], link.target) for link in links]
    assert found == spans


def test_long_reports_are_asked_about_in_parts_of_whole_sentences():
    text = "Findings: " + "The liver is normal. " * 300 + "\nImpression: Normal."
    parts = list(split_parts(text, longest=1000))
    assert all(len(part.text) <= 1000 and part.text.endswith(".") for part in parts)
    assert all(text[part.start : part.start + len(part.text)] == part.text for part in parts)
    assert "".join("".join(part.text.split()) for part in parts) == "".join(
        text.replace("Findings:", "").replace("Impression:", "").split()
    )


@pytest.mark.parametrize(
    ("url", "private"),
    [
        ("http://127.0.0.1:8080/v1", True),
        ("http://localhost:8080/v1", True),
        ("http://10.1.2.3/v1", True),
        ("http://192.168.0.9:11434/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://[::ffff:127.0.0.1]:8000/v1", True),
        ("http://8.8.8.8/v1", False),
        ("https://1.1.1.1/v1", False),
        ("http://[2606:4700::1111]/v1", False),
    ],
)
def test_addresses_of_ones_own_network_are_told_from_public_ones(url, private):
    assert is_private(url) is private


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1", "127.0.0.1:80", "http://user:key@127.0.0.1/", "http://127.0.0.1:x"]
)
def test_what_is_not_an_address_is_refused(url):
    with pytest.raises(VividMedError, match="endpoint"):
        is_private(url)


def test_credentialed_reports_go_to_a_public_address_only_after_their_terms_were_quoted():
    public, private = Endpoint("http://8.8.8.8/v1", "m"), Endpoint("http://127.0.0.1/v1", "m")
    check_address(private, [CREDENTIALED], confirmed=[])
    check_address(public, [OPEN], confirmed=[])
    for given in ([], ["yes"], [CREDENTIALED.name]):
        with pytest.raises(VividMedError, match="Reports must not be passed on"):
            check_address(public, [CREDENTIALED], confirmed=given)
    check_address(public, [CREDENTIALED], confirmed=[quote_of(CREDENTIALED)])


def test_the_prompt_names_every_target_that_has_a_place():
    text = tagging_prompt().instruction
    for name in (
        "(left, right) kidney",
        "T1 to T13 vertebra",
        "rib 1 to 12",
        "pleural effusion",
        "cardiomegaly",
    ):
        assert name in text
    assert "support device" not in text
