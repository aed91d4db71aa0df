"""Terms of data sets: what they allow, and their files."""

import json
from typing import ClassVar

import pytest

from vividmed.data.terms import (
    DatasetTerms,
    read_provenance,
    read_terms,
    write_provenance,
    write_terms,
)
from vividmed.errors import VividMedError


def make_terms(**changes):
    stated = {
        "name": "chest-set",
        "licence": "CC BY 4.0",
        "access": "open",
        "redistribute": "yes",
        "homepage": "https://example.org/chest",
        "citation": "Doe et al. A chest set. 2020.",
    }
    return DatasetTerms(**(stated | changes))


@pytest.mark.parametrize(
    ("access", "redistribute", "data", "model"),
    [
        ("open", "yes", "public", "public"),
        ("registered", "yes", "public", "public"),
        ("open", "no", "private", "gated"),
        ("registered", "derived_gated", "gated", "gated"),
        ("credentialed", "derived_gated", "private", "gated"),
        ("credentialed", "no", "private", "gated"),
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
        ({"access": "free"}, "field 'access' is 'free'; use one of open, registered, credentialed"),
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
    with pytest.raises(VividMedError, match=r"terms\.json is missing"):
        read_terms(tmp_path)
