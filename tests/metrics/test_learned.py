"""Metrics that need weights, on tiny random weights of the published form, against independent arithmetic."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from tests.metrics.conftest import TEXTS, WORDS, vocabulary
from tests.metrics.test_scoring import answers
from vividmed.errors import VividMedError
from vividmed.metrics.classification import classification_figures
from vividmed.metrics.learned.bertscore import BertScore
from vividmed.metrics.learned.chexbert import CONDITIONS, FIVE, CheXbert, CheXbertLabeller
from vividmed.metrics.learned.judge import Judge, LanguageModelEntailment
from vividmed.metrics.learned.radbert import ABNORMALITIES, RadBERT
from vividmed.metrics.learned.radcliq import RadCliQ, radcliq
from vividmed.metrics.learned.radgraph import RadGraphF1, radgraph_scores
from vividmed.metrics.predictions import Prediction
from vividmed.metrics.registry import choose
from vividmed.metrics.scoring import score


def test_chexbert_takes_the_published_checkpoint_and_its_classes(chexbert):
    labeller = CheXbertLabeller(chexbert)
    state = torch.load(chexbert / "chexbert.pth", weights_only=True)["model_state_dict"]
    ids = torch.tensor([[2, *(5 + WORDS.index(word) for word in TEXTS[0].split()), 3]])
    reference = BertModel(BertConfig.from_pretrained(chexbert)).eval()
    reference.load_state_dict(
        {n.removeprefix("module.bert."): v for n, v in state.items() if ".bert." in n and "_ids" not in n},
        strict=False,
    )
    with torch.no_grad():
        cls = reference(ids)[0][0, 0]
    np.testing.assert_allclose(labeller.embed(TEXTS[0]), cls, atol=1e-5)
    logits = [
        state[f"module.linear_heads.{n}.weight"] @ cls + state[f"module.linear_heads.{n}.bias"]
        for n in range(14)
    ]
    assert labeller(f" {TEXTS[0]}\n").tolist() == [int(each.argmax()) in (1, 3) for each in logits]
    assert labeller.embed(" ".join(WORDS * 60)).shape == (16,)  # cut to 512 tokens
    assert (len(CONDITIONS), [CONDITIONS[place] for place in FIVE][-1]) == (14, "Pleural Effusion")


def test_the_two_rates_of_missed_findings_are_not_the_same():
    true = np.array([[1, 1], [1, 0], [0, 0], [1, 1]], dtype=bool)
    found = np.array([[1, 1], [0, 1], [0, 1], [0, 1]], dtype=bool)
    figures = classification_figures(found, true)
    # First condition: 1 hit, 2 missed, 3 denied. Second: 2 hits, 2 false, nothing denied.
    assert figures["f1_macro"] == pytest.approx((2 / 4 + 4 / 6) / 2)
    assert figures["f1_micro"] == pytest.approx(6 / 10)
    assert (
        figures["false_omission_rate_macro"] == figures["false_omission_rate_micro"] == pytest.approx(2 / 3)
    )
    assert figures["false_negative_rate_macro"] == pytest.approx((2 / 3 + 0) / 2)
    assert figures["false_negative_rate_micro"] == pytest.approx(2 / 5)


def test_figures_of_chexbert_are_perfect_for_equal_texts_and_name_their_weights(chexbert):
    metric = CheXbert(chexbert)
    figures = metric.compute(predictions=TEXTS, references=TEXTS)
    assert figures["chexbert_14_f1_micro"] == figures["chexbert_5_f1_micro"] in (0, 1)
    assert figures["chexbert_14_f1_micro"] == 1
    assert figures["chexbert_14_false_negative_rate_micro"] == 0
    assert len(metric.scorer()["sha256"]) == 16


def test_radbert_takes_the_labels_of_the_table_by_the_name_of_the_volume(radbert, tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text(
        ",".join(["VolumeName", *ABNORMALITIES]) + "\nvalid_1_a_1.nii.gz" + ",1" + ",0" * 17 + "\n"
    )
    metric = RadBERT(radbert, labels=table)
    (item,) = metric.score_items([TEXTS[0]], [{"id": "ct-rate:valid_1_a_1#0", "text": ""}])
    assert item["true"].tolist() == [True, *[False] * 17]
    own = RadBERT(radbert)
    figures = own.compute(predictions=TEXTS, references=[{"id": "x", "text": text} for text in TEXTS])
    assert figures["radbert_f1_micro"] == 1
    with pytest.raises(VividMedError, match="has no volume 'valid_2'"):
        metric.score_items(["a"], [{"id": "valid_2", "text": ""}])


def test_bertscore_is_the_f1_of_greedily_matched_vectors(encoder):
    model = BertModel.from_pretrained(encoder).eval()

    def vectors(text):
        ids = [2, *(5 + WORDS.index(word) for word in text.split()), 3]
        with torch.no_grad():
            states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[5][0]
        return states / states.norm(dim=1, keepdim=True)

    first, second = vectors(TEXTS[0])[1:-1], vectors(TEXTS[1])[1:-1]
    similarity = vectors(TEXTS[0]) @ vectors(TEXTS[1]).T
    # The package gives the special tokens no weight, but lets others match them.
    precision = similarity[1:-1].max(1).values.mean()
    recall = similarity[:, 1:-1].max(0).values.mean()
    assert len(first) != len(second)
    expected = float(2 * precision * recall / (precision + recall))
    metric = BertScore(encoder)
    figures = metric.compute(predictions=[TEXTS[0].upper()], references=[TEXTS[1]])
    assert figures["bertscore"] == pytest.approx(expected, abs=1e-4)
    assert metric.compute(predictions=[" "], references=[TEXTS[1]])["bertscore"] == 0
    assert metric.scorer()["layer"] == 5
    assert BertScore(f"{encoder}@2").scorer()["layer"] == 2


def entity(tokens, label, *relations):
    return {"tokens": tokens, "label": label, "relations": [list(relation) for relation in relations]}


GRAPHS = [
    {"1": entity("effusion", "OBS-DP", ("located_at", "2")), "2": entity("left", "ANAT-DP")},
    {"1": entity("effusion", "OBS-DP", ("located_at", "2")), "2": entity("right", "ANAT-DP")},
    {"1": entity("effusion", "OBS-DP"), "2": entity("left", "ANAT-DP")},
    {"1": entity("effusion", "OBS-DA")},
    {},
]


@pytest.mark.parametrize("first", GRAPHS)
@pytest.mark.parametrize("second", GRAPHS)
def test_radgraph_levels_are_those_of_its_package(first, second):
    rewards = pytest.importorskip("radgraph.rewards", reason="needs the package radgraph")
    expected = rewards.compute_reward({"entities": first}, {"entities": second}, "all")
    scores = radgraph_scores(first, second)
    assert (scores["simple"], scores["partial"], scores["complete"]) == pytest.approx(expected)


def annotate(texts):
    return [GRAPHS[len(text) % 4] if text.strip() else {} for text in texts]


def test_an_empty_prediction_has_no_graph_and_scores_nothing():
    metric = RadGraphF1(annotator=annotate)
    assert metric.compute(predictions=["", "same"], references=["text", "same"])["radgraph_partial"] == 0.5


def test_radcliq_has_the_authors_coefficients():
    mean_v0 = (0.5398376019, 0.6312549595, 0.7716797867, 0.4607372065)
    assert radcliq(mean_v0, version="v0") == pytest.approx(1.6416666667)
    perfect = radcliq((1, 1, 1, 1), version="v1")
    expected = sum(
        coefficient * (1 - mean) / scale
        for coefficient, mean, scale in (
            (-0.3770836826, 0.5379231241, 0.3028258411),
            (-0.3703000997, 0.6175725628, 0.2243093846),
            (-0.2526162179, 0.7647942121, 0.2539439110),
        )
    )
    assert perfect == pytest.approx(expected, abs=1e-6)
    assert radcliq((1, 1, 1, 0), version="v1") == pytest.approx(perfect, abs=1e-9)


def test_radcliq_is_made_of_four_metrics_in_both_variants(chexbert, encoder):
    metric = RadCliQ(chexbert=chexbert, bertscore=encoder, annotator=annotate)
    same = metric.compute(predictions=TEXTS[:1], references=TEXTS[:1])
    # Entities and relations of the annotator: equal texts have equal graphs, here without relations.
    features = (radgraph_scores(*2 * annotate(TEXTS[:1]))["partial"], 1, 1, 1)
    assert same["radcliq_v1_published"] == pytest.approx(radcliq(features, version="v1"), abs=1e-4)
    other = metric.compute(predictions=TEXTS[1:2], references=TEXTS[:1])
    assert other["radcliq_v1"] > same["radcliq_v1"]


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (["chexbert"], "chexbert: needs a folder with chexbert.pth"),
        (["chexbert=nowhere"], "chexbert=nowhere: chexbert.pth is missing; take chexbert.pth"),
        (["radbert=nowhere"], "radbert=nowhere: RadBertClassifier.pth is missing"),
        (["radgraph=nowhere"], "radgraph=nowhere: config.json is missing"),
        (["bertscore=nowhere"], "bertscore=nowhere: is not a folder"),
        (["radcliq", "chexbert=here"], "also give radgraph=PLACE, bertscore=PLACE"),
        (["bleu=here"], "bleu takes no place"),
        (["judge=here"], "'judge' does not fit the task report"),
    ],
)
def test_missing_weights_are_one_line_that_names_the_file(metrics, message):
    reports = [Prediction(id="a", patient="p", task="report", reference="normal", prediction="normal")]
    with pytest.raises(VividMedError) as caught:
        score(reports, metrics, samples=1)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_of_another_model_or_with_code_are_refused(chexbert, tmp_path):
    vocabulary(tmp_path)
    torch.save({"model_state_dict": {"module.bert.x": torch.zeros(1)}}, tmp_path / "chexbert.pth")
    BertConfig.from_pretrained(chexbert).save_pretrained(tmp_path)
    with pytest.raises(VividMedError, match="do not fit the model"):
        CheXbertLabeller(tmp_path)
    torch.save({"model_state_dict": threading.Lock}, tmp_path / "chexbert.pth")
    with pytest.raises(VividMedError, match="cannot be read as PyTorch weights"):
        CheXbertLabeller(tmp_path)


@pytest.fixture
def endpoint():
    """A server that answers as an OpenAI-compatible one."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self._send({"data": [{"id": "judge-1"}]})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((body, dict(self.headers)))
            user = body["messages"][1]["content"]
            right = "Given answer: left lung" in user
            text = "I cannot say." if "Given answer: odd" in user else f"Analysis: x.\nScore: {int(right)}."
            self._send({"choices": [{"message": {"content": text}}]})

        def _send(self, content):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        def log_message(self, *words):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1", asked
    server.shutdown()


def test_a_judge_grades_answers_and_unparsed_ones_count_as_wrong(endpoint, monkeypatch):
    address, asked = endpoint
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    predictions = [
        Prediction(
            id=str(n), patient=str(n), task="vqa", question="Where?", reference="left lung", prediction=said
        )
        for n, said in enumerate(("left lung", "right lung", "odd", ""))
    ]
    scores = score(predictions, [f"judge={address}"], samples=2)
    assert scores.figures["judge"].value == pytest.approx(1 / 4)
    assert scores.figures["judge_unparsed"].value == pytest.approx(1 / 4)
    assert scores.scorers["judge"]["model"] == "judge-1"
    assert len(asked) == 3
    assert not any("hf_secret" in str(headers) for _, headers in asked)


@pytest.mark.parametrize(
    ("text", "score_of_it"),
    [
        ("Analysis: same. Score: 1", 1),
        ("Score: 0.", 0),
        ("**Score:** 1.0", 1),
        ("Score: 10", None),
        ("Score: 0.5", None),
        ("yes", None),
    ],
)
def test_a_score_is_read_only_where_it_is_0_or_1(text, score_of_it):
    class Says:
        def __call__(self, system, user):
            return text

        def identity(self):
            return {}

    item = Judge(chat=Says()).score_item("a", {"question": "q", "answer": "b"})
    assert item == {"judge": float(score_of_it or 0), "judge_unparsed": float(score_of_it is None)}


@pytest.mark.parametrize(
    ("answer", "evidence", "unparsed"),
    [("1, 3", [0, 2], 0), ("None.", [], 0), ("7", [], 1), ("maybe", [], 1)],
)
def test_a_language_model_names_the_supporting_phrases(answer, evidence, unparsed):
    class Says:
        def __call__(self, system, user):
            assert "2. b" in user
            return answer

        def identity(self):
            return {"model": "m"}

    entailment = LanguageModelEntailment(chat=Says())
    assert entailment("x", ["a", "b", "c"]) == evidence
    assert entailment.identity()["unparsed"] == unparsed


def test_credentialed_texts_are_not_sent_to_others():
    predictions = answers(2)
    for prediction in predictions:
        prediction.source = "MIMIC-CXR"
    with pytest.raises(VividMedError, match="terms forbid sending it to others"):
        score(predictions, ["judge=http://192.0.2.1/v1"], samples=1)


def test_metrics_with_weights_are_not_chosen_by_default():
    assert "chexbert" not in choose("report", None)[0]
    assert {"bleu", "findings", "laterality"} <= choose("report", None)[0].keys()
