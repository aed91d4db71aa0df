"""Terms of data sets: what they allow, and their files."""

import json
from typing import ClassVar

import pytest
from datasets import Dataset

from tests.fixtures.hub.cards import make_terms
from vividmed.data.known_terms import known_terms
from vividmed.data.terms import (
    DatasetTerms,
    RowSource,
    combine_terms,
    read_all_terms,
    read_provenance,
    read_terms,
    row_sources,
    terms_of_rows,
    widest_visibility,
    write_provenance,
    write_terms,
)
from vividmed.errors import VividMedError


@pytest.mark.parametrize(
    ("access", "redistribute", "data", "model"),
    [
        ("open", "yes", "public", "public"),
        ("registered", "yes", "public", "public"),
        ("open", "no", "private", "gated"),
        ("registered", "derived_gated", "gated", "gated"),
        ("credentialed", "derived_gated", "private", "gated"),
        ("credentialed", "no", "private", "gated"),
        ("unknown", "no", "private", "private"),
    ],
)
def test_terms_decide_the_widest_audience_of_data_and_of_models(access, redistribute, data, model):
    terms = make_terms(access=access, redistribute=redistribute)
    assert (terms.data_visibility, terms.model_visibility) == (data, model)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"licence": " "}, "field 'licence' is ' '"),
        ({"homepage": None}, "field 'homepage' is None"),
        (
            {"access": "free"},
            "field 'access' is 'free'; use one of open, registered, credentialed, internal, unknown",
        ),
        ({"redistribute": "maybe"}, "field 'redistribute' is 'maybe'; use one of yes, no, derived_gated"),
        ({"access": "credentialed"}, "'yes' although access is credentialed"),
    ],
)
def test_wrong_terms_name_the_field_and_what_it_may_be(changes, message):
    with pytest.raises(VividMedError, match=message):
        make_terms(**changes)


def test_any_class_with_the_attributes_states_terms():
    class Adapter:
        name: ClassVar[str] = "ct-set"
        licence: ClassVar[str] = "CC BY-NC-SA 4.0"
        access: ClassVar[str] = "registered"
        redistribute: ClassVar[str] = "no"
        homepage: ClassVar[str] = "https://example.org/ct"
        citation: ClassVar[str] = "Roe. 2021."
        terms: ClassVar[str] = "Research only."

    assert DatasetTerms.of(Adapter()) == DatasetTerms.of(Adapter)
    assert "Research only." in str(DatasetTerms.of(Adapter))


def test_terms_and_provenance_survive_their_files(tmp_path):
    first, second = make_terms(terms="Cite the authors: Müller."), make_terms(name="a-set", redistribute="no")
    write_terms(tmp_path, first)
    write_provenance(tmp_path, [first, second, first])
    assert read_terms(tmp_path) == first
    assert read_provenance(tmp_path) == [second, first]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["provenance.json", "terms.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "names no data set"),
        ('{"datasets": []}', "names no data set"),
        ('{"datasets": ["chest-set"]}', "need exactly the fields name, licence"),
        (json.dumps({"datasets": [{"name": "a", "access": "open"}]}), "need exactly the fields"),
    ],
)
def test_wrong_provenance_names_the_file_and_the_problem(tmp_path, content, message):
    (tmp_path / "provenance.json").write_text(content)
    with pytest.raises(VividMedError, match=rf"provenance\.json.*{message}"):
        read_provenance(tmp_path)


def test_missing_terms_name_the_file(tmp_path):
    with pytest.raises(VividMedError, match=r"terms\.json: is missing"):
        read_terms(tmp_path)


CHEST = make_terms(source="The Chest Set")
SECRET = make_terms(name="notes", licence="Agreement 1.5", access="credentialed", redistribute="no")


def rows_of(*pairs):
    return [RowSource(*pair) for pair in pairs]


@pytest.mark.parametrize(
    ("source", "licence"),
    [
        ("The Chest Set", "CC BY 4.0"),
        ("the chest  set", "CC-BY-4.0"),
        ("chest-set", "CC BY 4.0"),
        ("The Chest Set: lateral views", "CC BY 4.0"),
    ],
)
def test_rows_have_the_terms_of_their_source(source, licence):
    assert terms_of_rows(rows_of((source, licence)), known=[CHEST, SECRET]) == [CHEST]


@pytest.mark.parametrize(
    ("rows", "options", "reason"),
    [
        ([("Another set", "CC0")], {"known": [CHEST]}, "no terms are stated"),
        ([(None, None)], {"known": [CHEST]}, "no terms are stated"),
        ([("The Chest Set", "CC0")], {"known": [CHEST]}, "its rows give the licence 'CC0'"),
        ([("The Chest Set", None)], {"stated": [CHEST]}, "its rows give the licence None"),
        (
            [("notes", "CC0")],
            {"known": [SECRET], "stated": [make_terms(name="notes", licence="CC0")]},
            "differently",
        ),
        (
            [("notes", "Agreement 1.5")],
            {
                "known": [SECRET],
                "stated": [make_terms(name="notes", licence="Agreement 1.5", redistribute="derived_gated")],
            },
            "differently",
        ),
    ],
    ids=["unknown source", "no source", "other licence", "no licence", "edited file", "edited access"],
)
def test_terms_that_are_unknown_or_disagree_keep_rows_private(rows, options, reason):
    found = terms_of_rows(rows_of(*rows), **options)
    assert any(terms.access == "unknown" and reason in terms.terms for terms in found)
    assert widest_visibility(found, "data") == widest_visibility(found, "model") == "private"


def test_rows_of_several_data_sets_have_the_terms_of_all(tmp_path):
    mixed = rows_of(("The Chest Set", "CC BY 4.0"), ("notes", "Agreement 1.5"))
    found = terms_of_rows(mixed, known=[CHEST, SECRET])
    assert found == [CHEST, SECRET]
    assert (widest_visibility(found, "data"), widest_visibility(found, "model")) == ("private", "gated")
    # A data set made from both keeps both, and states them again for what is made from it.
    write_terms(tmp_path, found)
    assert read_all_terms(tmp_path) == found
    assert terms_of_rows(mixed, stated=read_all_terms(tmp_path)) == found
    with pytest.raises(VividMedError, match=r"several data sets \(chest-set, notes\)"):
        read_terms(tmp_path)


def test_stated_terms_count_even_if_no_row_names_them():
    assert terms_of_rows(rows_of(("The Chest Set", "CC BY 4.0")), stated=[CHEST, SECRET]) == [CHEST, SECRET]


def test_contradicting_records_of_one_name_combine_to_unknown_terms():
    (unknown,) = combine_terms([SECRET, make_terms(name="notes"), SECRET])
    assert unknown.access == "unknown"
    assert combine_terms(
        [
            SECRET,
            make_terms(
                name="notes",
                licence="Agreement 1.5",
                access="credentialed",
                redistribute="no",
                citation="Another edition.",
            ),
        ]
    ) == [SECRET]


def test_sources_of_rows_are_read_without_images():
    rows = Dataset.from_dict(
        {"source": ["a", "a", None], "licence": ["CC0", "CC0", "MIT"], "images": [[], [], []]}
    )
    expected = {RowSource("a", "CC0"), RowSource(None, "MIT")}
    assert row_sources(rows) == row_sources(list(rows)) == expected
    assert row_sources(rows.select([2])) == {RowSource(None, "MIT")}


def test_the_terms_of_every_adapter_and_of_the_sample_are_found_by_the_rows_they_give():
    for terms in known_terms():
        row = RowSource(terms.source, terms.licence)
        assert terms_of_rows([row], known=known_terms()) == [terms]
