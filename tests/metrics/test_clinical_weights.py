"""Metrics with weights from the command line to the table, each on a tiny network of the published form."""

import json
import shutil

import pytest
import torch
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

from tests.metrics.conftest import SMALL, TEXTS, vocabulary
from tests.metrics.test_scoring import answers, write
from vividmed.cli.main import main
from vividmed.errors import VividMedError
from vividmed.metrics.learned.bertscore import BertScore
from vividmed.metrics.learned.chexbert import CheXbert
from vividmed.metrics.learned.radbert import RadBERT
from vividmed.metrics.learned.radgraph import RadGraphAnnotator, RadGraphF1, loadable_tokenizers
from vividmed.metrics.predictions import Prediction
from vividmed.processing.tokenizer import load_tiny_tokenizer

_BERT = {"type": "pretrained_transformer_mismatched", "max_length": 16, "model_name": "bert"}
CONFIG = {
    "dataset_reader": {"type": "dygie", "max_span_width": 4, "token_indexers": {"bert": _BERT}},
    "model": {
        "type": "dygie",
        "embedder": {"token_embedders": {"bert": _BERT}},
        "initializer": {},
        "module_initializer": {},
        "modules": {
            "ner": {},
            "coref": {"spans_per_word": 0.3, "max_antecedents": 10},
            "relation": {"spans_per_word": 0.5},
            "events": {
                "trigger_spans_per_word": 0.3,
                "argument_spans_per_word": 0.8,
                "loss_weights": {"trigger": 1.0, "arguments": 1.0},
            },
        },
        "feature_size": 4,
        "max_span_width": 4,
        "target_task": "relation",
        "feedforward_params": {"num_layers": 1, "hidden_dims": 8, "dropout": 0.0},
        "loss_weights": {"ner": 0.2, "relation": 1.0, "coref": 0.0, "events": 0.0},
    },
}
LABELS = {
    "ner": ["", "ANAT-DP", "OBS-DP", "OBS-U", "OBS-DA"],
    "relation": ["", "modify", "located_at", "suggestive_of"],
}


@pytest.fixture(scope="module")
def radgraph(tmp_path_factory):
    """An archive of RadGraph, unpacked, with random weights that find entities and relations."""
    pytest.importorskip("radgraph", reason="needs the package radgraph")
    from radgraph.allennlp.data import Vocabulary
    from radgraph.allennlp.modules import text_field_embedders, token_embedders
    from radgraph.dygie.models import dygie

    folder = tmp_path_factory.mktemp("radgraph")
    bert, names = folder / "encoder", folder / "vocabulary"
    config = BertConfig(vocab_size=vocabulary(bert), num_hidden_layers=1, **SMALL)
    (bert / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    torch.manual_seed(0)
    BertModel(config).save_pretrained(bert)
    names.mkdir()
    (names / "non_padded_namespaces.txt").write_text("*labels\n*tags\n")
    for kind, labels in LABELS.items():
        (names / f"radgraph__{kind}_labels.txt").write_text("\n".join(labels) + "\n")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    with loadable_tokenizers():
        embedder = token_embedders.PretrainedTransformerMismatchedEmbedder(
            model_name=str(bert), max_length=_BERT["max_length"]
        )
    settings = json.loads(json.dumps(CONFIG["model"]))
    for name in ("type", "embedder", "initializer", "module_initializer"):
        del settings[name]
    network = dygie.DyGIE(
        vocab=Vocabulary.from_files(str(names)),
        embedder=text_field_embedders.BasicTextFieldEmbedder({"bert": embedder}),
        **settings,
    )
    for name, tensor in network.named_parameters():
        if "_scorer" in name and tensor.ndim > 1:
            torch.nn.init.normal_(tensor)
    torch.save(network.state_dict(), folder / "weights.th")
    return folder


def test_radgraph_annotates_reports_with_local_weights(radgraph):
    annotator = RadGraphAnnotator(radgraph)
    long = " ".join(TEXTS * 5)  # more word pieces than the encoder takes at once
    first, empty, again, _ = annotator([TEXTS[0], " ", TEXTS[0], long])
    assert empty == {}
    assert first == again != {}
    assert {entity["label"] for entity in first.values()} <= set(LABELS["ner"])
    assert any(entity["relations"] for entity in first.values())
    figures = RadGraphF1(radgraph).compute(predictions=[*TEXTS, ""], references=[*TEXTS, "heart"])
    assert figures == dict.fromkeys(("radgraph_simple", "radgraph_partial", "radgraph_complete"), 0.75)


def test_all_metrics_with_weights_are_scored_by_one_command(
    chexbert,
    radbert,
    encoder,
    radgraph,
    tmp_path,
    capsys,
):
    write(
        tmp_path,
        [
            Prediction(
                id=f"report-{number}",
                patient=f"patient-{number}",
                task="report",
                reference=text,
                prediction=TEXTS[0] if number else "",
            )
            for number, text in enumerate(TEXTS)
        ],
    )
    places = {"chexbert": chexbert, "radbert": radbert, "radgraph": radgraph, "bertscore": encoder}
    metrics = ",".join([*(f"{name}={place}" for name, place in places.items()), "radcliq"])
    assert main(["evaluate", "score", str(tmp_path), "--metrics", metrics, "--samples", "5"]) == 0
    table = capsys.readouterr().out
    for figure in (
        *(
            "chexbert_14_f1_macro",
            "chexbert_5_false_omission_rate_micro",
            "chexbert_5_false_negative_rate_macro",
        ),
        *("radbert_f1_micro", "radgraph_partial", "bertscore"),
        *("radcliq_v0", "radcliq_v1", "radcliq_v0_published", "radcliq_v1_published"),
    ):
        assert f"| {figure} |" in table
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert all(scores["counts"][name] == 3 for name in ("radgraph_partial", "bertscore", "radcliq_v1"))
    assert {"chexbert", "radbert", "radgraph", "bertscore", "radcliq"} <= set(scores["scorers"])


METRICS = {"chexbert": CheXbert, "radbert": RadBERT, "encoder": BertScore, "radgraph": RadGraphF1}
DAMAGES = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "a web page": lambda path: path.write_text("<html>Not found</html>"),
    "a tensor": lambda path: torch.save(torch.zeros(3), path),
    "other weights": lambda path: torch.save({"model_state_dict": {"a": 1, 2: 3}, "a": torch.zeros(3)}, path),
}


@pytest.mark.parametrize(
    ("weights", "name", "damage"),
    [
        *(
            (weights, name, damage)
            for weights, name in (("chexbert", "chexbert.pth"), ("radbert", "RadBertClassifier.pth"))
            for damage in DAMAGES
        ),
        *(
            ("encoder", "model.safetensors", damage)
            for damage in ("missing", "empty", "cut off", "a web page")
        ),
        *(("radgraph", "weights.th", damage) for damage in ("missing", "a web page", "a tensor")),
        ("chexbert", "vocab.txt", "empty"),
        ("chexbert", "config.json", "a web page"),
        ("radbert", "vocab.txt", "a web page"),
        ("radbert", "config.json", "missing"),
        ("encoder", "config.json", "empty"),
        ("radgraph", "config.json", "cut off"),
    ],
)
def test_damaged_weights_are_named_in_one_line(weights, name, damage, request, tmp_path):
    folder = tmp_path / "weights"
    shutil.copytree(request.getfixturevalue(weights), folder)
    DAMAGES[damage](folder / name)
    place = f"{folder}@2" if weights == "encoder" else folder
    with pytest.raises(VividMedError) as caught:
        METRICS[weights](place)
    message = str(caught.value)
    assert str(folder) in message
    assert name in message or "cannot be loaded" in message
    assert "\n" not in message
    assert "weights_only" not in message


def test_a_tokenizer_of_another_encoder_is_refused(chexbert, tmp_path):
    shutil.copytree(chexbert, tmp_path, dirs_exist_ok=True)
    with (tmp_path / "vocab.txt").open("a") as stream:
        stream.write("further\n")
    with pytest.raises(VividMedError, match="the tokenizer has 23 tokens, but the encoder knows 22"):
        CheXbert(tmp_path)


@pytest.mark.parametrize(
    "template", ["", "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"]
)
def test_a_local_language_model_judges_and_what_it_does_not_decide_is_counted(template, tmp_path, capsys):
    model, folder = tmp_path / "judge-1", tmp_path / "predictions"
    tokenizer = load_tiny_tokenizer()
    tokenizer.chat_template = template or None
    tokenizer.save_pretrained(model)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=4096,
        eos_token_id=list(range(len(tokenizer))),  # one token is all that it says
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(model)
    write(folder, answers(2))
    assert main(["evaluate", "score", str(folder), "--metrics", f"judge={model}", "--samples", "2"]) == 0
    scores = json.loads((folder / "scores.json").read_text())
    # Random weights say nothing that can be read as a score.
    assert (scores["figures"]["judge"]["value"], scores["figures"]["judge_unparsed"]["value"]) == (0, 1)
    assert scores["scorers"]["judge"]["model"] == "judge-1"
    assert str(tmp_path) not in capsys.readouterr().out.split("Scorer of")[1]
