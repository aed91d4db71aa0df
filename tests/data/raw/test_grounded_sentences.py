from vividmed.data.raw.grounded_sentences import mark_sentences


def test_sentences_with_names_are_marked_without_their_full_stop():
    report, phrases = mark_sentences(
        [(" Small\nnodule. ", ["nodule #1"]), ("No effusion", []), ("Two cysts;", ["cyst #1", "cyst #2"])]
    )
    assert report == "<p>Small nodule</p>. No effusion. <p>Two cysts</p>."
    assert phrases == (("nodule #1",), ("cyst #1", "cyst #2"))


def test_empty_sentences_leave_no_phrase():
    assert mark_sentences([("", ["nodule"]), (" . ", ["nodule"]), ("Clear.", [])]) == ("Clear.", ())
