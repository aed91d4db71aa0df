"""Weights carry the terms of everything they come from, on every road that leads to them."""

import json
import shutil

import pytest
import torch
import yaml
from datasets import concatenate_datasets
from trl import get_peft_config

from tests.fixtures.training import make_row, make_rows, small_model, small_processor, small_trainer
from vividmed.data.adapters import get_adapter
from vividmed.data.sampling.mixture import load_mixture
from vividmed.data.schema import schema
from vividmed.data.terms import (
    DatasetTerms,
    read_provenance,
    widest_visibility,
    write_provenance,
    write_terms,
)
from vividmed.errors import VividMedError
from vividmed.hub.publish import publish_model
from vividmed.models.modeling_vividmed import VividMedForCausalLM
from vividmed.training.adapters.groups import select_modules
from vividmed.training.adapters.merging import save_merged_model
from vividmed.training.adapters.peft import add_adapter
from vividmed.training.loading import load_model
from vividmed.training.runs.provenance import model_terms, rows_terms, run_provenance
from vividmed.training.settings.arguments import DataArguments
from vividmed.training.settings.model_arguments import ModelArguments

OPEN, CREDENTIALED = get_adapter("vqa-rad"), get_adapter("mimic-cxr")
STEPS = {"save_steps": 1, "per_device_train_batch_size": 2}


def rows_of(adapter, count=4):
    """A miniature of a data set, as its adapter labels the rows."""
    changed = {"source": adapter.title, "licence": adapter.licence}
    rows = make_rows([0])
    return rows.from_list([make_row(n) | changed for n in range(count)], features=schema("vision_language"))


def names(terms):
    return [each.name for each in terms]


def train(folder, rows, resume=None, model=None, **settings):
    trainer = small_trainer(folder, rows=rows, model=model, **{**STEPS, **settings})
    trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    trainer.save_final()
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n\nNot a medical device.\n")
    return folder


@pytest.fixture(scope="module")
def closed_run(tmp_path_factory):
    """A run on credentialed data, with a checkpoint at its only step."""
    return train(tmp_path_factory.mktemp("closed"), rows_of(CREDENTIALED), max_steps=1)


@pytest.mark.parametrize("kept", ["checkpoint", "checkpoint without provenance"])
def test_weights_of_credentialed_data_stay_private_when_resumed_on_open_data(closed_run, tmp_path, kept):
    checkpoint = tmp_path / "checkpoint-1"
    shutil.copytree(closed_run / "checkpoint-1", checkpoint)
    if kept != "checkpoint":
        (checkpoint / "provenance.json").unlink()
    run = train(tmp_path / "run", rows_of(OPEN), checkpoint, max_steps=2, allow_inexact_resume=True)
    with pytest.raises(VividMedError, match="mimic-cxr" if kept == "checkpoint" else "checkpoint-1"):
        publish_model(run, "tester/model", public=True)


def test_weights_of_open_data_may_be_published(tmp_path):
    run = train(tmp_path / "run", rows_of(OPEN), max_steps=1)
    assert names(read_provenance(run)) == names(read_provenance(run / "checkpoint-1")) == ["vqa-rad"]
    assert widest_visibility(read_provenance(run), "model") == "public"


def test_rows_of_both_in_one_data_set_or_mixture_have_the_terms_of_both(tmp_path):
    both = concatenate_datasets([rows_of(OPEN), rows_of(CREDENTIALED)])
    assert names(rows_terms(both)) == ["mimic-cxr", "vqa-rad"]
    for adapter in (OPEN, CREDENTIALED):
        (tmp_path / adapter.name).mkdir()
        rows_of(adapter).to_parquet(tmp_path / adapter.name / "train.parquet")
    entries = [{"name": each.name, "kind": "vision_language"} for each in (OPEN, CREDENTIALED)]
    (tmp_path / "mixture.yaml").write_text(yaml.safe_dump({"datasets": entries}))
    mixture = load_mixture(str(tmp_path / "mixture.yaml"), root=str(tmp_path))
    assert names(rows_terms(mixture)) == ["mimic-cxr", "vqa-rad"]


def test_run_inherits_from_data_files_and_every_model_it_starts_from(tmp_path, closed_run):
    write_terms(tmp_path, DatasetTerms.of(OPEN))
    (tmp_path / "base").mkdir()
    stated = DatasetTerms.of(get_adapter("openi"))
    write_provenance(tmp_path / "base", [stated])
    found = run_provenance(
        rows_of(OPEN),
        DataArguments(dataset_name=str(tmp_path)),
        [str(tmp_path / "base"), str(closed_run)],
    )
    assert names(found) == sorted([stated.name, "mimic-cxr", "vqa-rad"])


def test_model_that_states_nothing_is_of_unknown_terms(tmp_path):
    (terms,) = model_terms(tmp_path)
    assert terms.model_visibility == "private"
    assert "provenance.json" in str(terms)


def test_rows_whose_licence_is_not_that_of_their_source_are_private():
    relabelled = rows_of(CREDENTIALED).map(lambda row: {"licence": "CC0"})
    assert widest_visibility(rows_terms(relabelled), "model") == "private"


def test_adapter_inherits_from_its_base_model_even_without_a_statement_of_its_own(tmp_path, closed_run):
    model = small_model(small_processor())
    model.name_or_path = str(closed_run)
    adapted = add_adapter(model, get_peft_config(ModelArguments(use_peft=True)), select_modules(model))
    adapted.save_pretrained(tmp_path / "adapter")
    assert "mimic-cxr" in names(model_terms(tmp_path / "adapter"))


@pytest.mark.parametrize("closed_part", ["base", "adapter"])
def test_merged_model_has_a_card_and_the_provenance_of_both_parts(tmp_path, closed_part):
    base, run, processor = tmp_path / "base", tmp_path / "run", small_processor()
    small_model(processor).save_pretrained(base)
    processor.save_pretrained(base)
    write_provenance(base, [DatasetTerms.of(CREDENTIALED if closed_part == "base" else OPEN)])
    model = load_model(ModelArguments(str(base), use_peft=True), processor, base_folder=base, seed=0)
    train(run, rows_of(OPEN if closed_part == "base" else CREDENTIALED), model=model, max_steps=1)
    save_merged_model(run, tmp_path / "merged")
    batch = processor(images=make_row(0)["images"], text="What is the modality?")
    merged = VividMedForCausalLM.from_pretrained(tmp_path / "merged")
    model.eval()
    torch.testing.assert_close(merged(**batch).logits, model(**batch).logits, atol=1e-4, rtol=1e-4)
    card = (tmp_path / "merged" / "README.md").read_text()
    assert "`run` merged into its base model `base`" in card
    assert "| mimic-cxr |" in card
    assert str(tmp_path) not in card
    with pytest.raises(VividMedError, match="mimic-cxr"):
        publish_model(tmp_path / "merged", "tester/model", public=True)
    with pytest.raises(VividMedError, match="is not empty"):
        save_merged_model(run, tmp_path / "merged")
    with pytest.raises(VividMedError, match="is not an adapter"):
        save_merged_model(base, tmp_path / "other")


def test_final_weights_never_lie_beside_the_provenance_of_others(tmp_path, monkeypatch):
    write_provenance(tmp_path, [DatasetTerms.of(OPEN)])
    trainer = small_trainer(tmp_path, rows=rows_of(CREDENTIALED), max_steps=1)

    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("vividmed.training.runs.resumable_trainer.sync_folder", stop)
    with pytest.raises(KeyboardInterrupt):
        trainer.save_final()
    assert json.loads((tmp_path / "provenance.json").read_text())["datasets"][0]["name"] == "mimic-cxr"
