"""Which runs leave a statement of the terms they are under, and what it says."""

import yaml

from vividmed.data.terms import DatasetTerms, read_provenance, write_provenance, write_terms
from vividmed.training.arguments import DataArguments
from vividmed.training.provenance import write_run_provenance


def terms(name: str) -> DatasetTerms:
    return DatasetTerms(
        name=name, licence="CC BY 4.0", access="open", redistribute="yes", homepage="here", citation="them"
    )


def folder(path, name=None):
    path.mkdir()
    if name is not None:
        write_terms(path, terms(name))
    return str(path)


def names(path) -> list[str]:
    return [each.name for each in read_provenance(path)]


def test_provenance_joins_data_and_the_model_started_from(tmp_path):
    data, base = folder(tmp_path / "data", "ours"), folder(tmp_path / "base")
    write_provenance(tmp_path / "base", [terms("earlier"), terms("ours")])
    write_run_provenance(tmp_path, DataArguments(dataset_name=data), [base, None])
    assert names(tmp_path) == ["earlier", "ours"]


def test_every_data_set_of_a_mixture_counts(tmp_path):
    entries = [
        {"name": name, "kind": "localization", "path": folder(tmp_path / name, name)} for name in ("a", "b")
    ]
    mixture = tmp_path / "mixture.yaml"
    mixture.write_text(yaml.safe_dump({"datasets": entries}))
    write_run_provenance(tmp_path, DataArguments(mixture=str(mixture)), [])
    assert names(tmp_path) == ["a", "b"]


def test_data_without_terms_leaves_no_provenance_not_even_an_earlier_one(tmp_path):
    write_run_provenance(tmp_path, DataArguments(dataset_name=folder(tmp_path / "known", "ours")), [])
    assert names(tmp_path) == ["ours"]
    write_run_provenance(tmp_path, DataArguments(dataset_name=folder(tmp_path / "unknown")), [])
    assert not (tmp_path / "provenance.json").exists()


def test_model_without_provenance_leaves_none(tmp_path):
    data, base = folder(tmp_path / "data", "ours"), folder(tmp_path / "base")
    write_run_provenance(tmp_path, DataArguments(dataset_name=data), [base])
    assert not (tmp_path / "provenance.json").exists()


def test_models_of_the_sample_may_be_shared_behind_a_gate_at_most(tmp_path):
    write_run_provenance(tmp_path, DataArguments(), [None])
    assert {each.model_visibility for each in read_provenance(tmp_path)} == {"gated"}
