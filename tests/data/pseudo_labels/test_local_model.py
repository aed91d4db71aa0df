"""A local language model of transformers: tiny and random, so its answers are nonsense and the reports must survive them."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.data.pseudo_labels.test_cleaning import study
from vividmed.data.pseudo_labels.cleaning import Cleaning
from vividmed.data.pseudo_labels.filtering import Filtering
from vividmed.data.pseudo_labels.language_models import Failure, LocalModel
from vividmed.data.pseudo_labels.prompts import Prompt
from vividmed.data.pseudo_labels.tagging_step import Tagging
from vividmed.errors import VividMedError
from vividmed.processing.tokenizer import load_tiny_tokenizer

REPORTS = ["A small left pleural effusion. The liver is normal.", "The heart is enlarged."]
PROMPT = Prompt("Repeat the report.", (("The spleen.", "The [spleen](spleen)."),))
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant: "
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + TEMPLATE
)
NO_TURNS = "{{ raise_exception('never') }}"


def write_model(folder, template=TEMPLATE, longest=512):
    tokenizer = load_tiny_tokenizer()
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=longest,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = LlamaForCausalLM(config)
    # Left as they are, sampling settings would make answers random.
    model.generation_config.do_sample = True
    model.generation_config.temperature = 5.0
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("language") / "tiny-model")


def test_nonsense_changes_no_report(folder):
    model = LocalModel(str(folder), max_new_tokens=8)
    studies = [study(report) for report in REPORTS]
    cleaned = Cleaning(model, prompt=PROMPT).run(studies)
    filtered = Filtering(model, prompt=PROMPT).run(Tagging(model, prompt=PROMPT).run(cleaned))
    assert [each.text for each in filtered] == REPORTS
    assert [[phrase.target for phrase in each.phrases] for each in filtered] == [
        ["pleural effusion", "liver"],
        ["cardiomegaly"],
    ]
    assert {phrase.tagger for each in filtered for phrase in each.phrases} == {"rules"}
    assert "tagged by rules instead" in {reject.reason for reject in filtered[0].rejects}


def test_answers_are_the_same_in_any_batch_and_at_any_time(folder):
    conversations = [PROMPT.messages(report) for report in REPORTS]
    together = LocalModel(str(folder), max_new_tokens=8).complete(conversations)
    model = LocalModel(str(folder), max_new_tokens=8)
    assert [model.complete([each])[0] for each in conversations] == together
    assert all(isinstance(answer, str) and answer for answer in together)


def test_a_question_that_is_too_long_fails_without_its_neighbours(tmp_path):
    model = LocalModel(str(write_model(tmp_path / "short", longest=128)), max_new_tokens=4)
    long, short = model.complete([PROMPT.messages("liver " * 500), PROMPT.messages("The liver.")])
    assert isinstance(long, Failure)
    assert isinstance(short, str)


def test_templates_without_a_system_role_get_the_instruction_with_the_first_question(tmp_path, folder):
    model = LocalModel(str(write_model(tmp_path / "no-system", NO_SYSTEM)), max_new_tokens=4)
    tokenizer = model._load()[1]
    ids = model._encode(tokenizer, [PROMPT.messages(REPORTS[0])])["input_ids"][0]
    assert PROMPT.instruction in tokenizer.decode(ids)


def test_records_name_the_model_without_its_place_and_know_other_weights(folder, tmp_path):
    model = LocalModel(str(folder))
    assert model.name == "tiny-model"
    assert str(folder.parent) not in str(model.settings)
    other = write_model(tmp_path / "tiny-model", longest=256)
    assert LocalModel(str(other)).settings != model.settings


@pytest.mark.parametrize("template", [None, NO_TURNS], ids=["no template", "a template that always fails"])
def test_a_model_that_cannot_converse_is_refused_with_one_line(tmp_path, template):
    model = LocalModel(str(write_model(tmp_path / "mute", template)))
    with pytest.raises(VividMedError, match=r"--model .*template"):
        model.complete([PROMPT.messages("The liver.")])


@pytest.mark.parametrize("damage", ["no weights", "broken weights", "broken configuration", "empty"])
def test_what_is_not_a_language_model_is_refused_with_one_line(tmp_path, damage):
    folder = tmp_path / "damaged"
    if damage == "empty":
        folder.mkdir()
    else:
        write_model(folder)
    if damage == "no weights":
        (folder / "model.safetensors").unlink()
    if damage == "broken weights":
        (folder / "model.safetensors").write_bytes(b"nonsense")
    if damage == "broken configuration":
        (folder / "config.json").write_text("{")
    with pytest.raises(VividMedError, match=r"--model .* cannot be loaded") as caught:
        LocalModel(str(folder)).complete([PROMPT.messages("The liver.")])
    assert "\n" not in str(caught.value)
