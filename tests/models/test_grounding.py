"""Grounded forward and generation: what phrases learn from, what they leave alone, and what comes out."""

import numpy as np
import pytest
import torch

from tests.fixtures.batches import (
    PHRASE_END,
    tiny_config,
)
from tests.fixtures.phrases import (
    SEGMENTER,
    PhraseEveryFourTokens,
    batch_of,
    grounded_model,
    mixed_labels,
    mixed_samples,
)
from vividmed import VividMedConfig, VividMedError, VividMedForCausalLM, VividMedProcessor
from vividmed.models.phrases.grounding import SampleIndex, phrase_states


def loss_and_gradients(model, batch, labels) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss = model(**batch, grounding_labels=labels).loss
    loss.backward()
    return loss.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def test_the_prompt_of_a_phrase_is_the_state_one_step_before_its_end():
    ids = torch.tensor([[1, 60, 5, 61, 6, 61, 0], [1, 7, 8, 9, 10, 11, 12]])
    mask = torch.tensor([[1, 1, 1, 1, 1, 1, 0], [1] * 7])
    states = torch.arange(14.0).view(2, 7, 1)
    found = phrase_states(states, ids, SampleIndex.build(ids, mask), PHRASE_END)
    assert [state.flatten().tolist() for state in found] == [[2.0, 4.0], []]


@pytest.mark.parametrize("layout", ["left", "packed"])
def test_loss_and_gradients_do_not_depend_on_the_layout(layout):
    model, labels = grounded_model(), mixed_labels()
    expected, reference = loss_and_gradients(model, batch_of(mixed_samples()), labels)
    loss, gradients = loss_and_gradients(model, batch_of(mixed_samples(), layout), labels)
    torch.testing.assert_close(loss, expected)
    assert gradients.keys() == reference.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, reference[name], atol=1e-5, rtol=1e-4, msg=name)


def test_the_loss_is_the_mean_over_all_samples_and_adds_to_the_text_s():
    model, samples, labels = grounded_model(), mixed_samples(), mixed_labels()
    together = model(**batch_of(samples), grounding_labels=labels)
    single = [
        model(**batch_of([sample]), grounding_labels=[label]).loss_components["grounding_loss"]
        for sample, label in zip(samples, labels, strict=True)
    ]
    parts = together.loss_components
    torch.testing.assert_close(parts["grounding_loss"], torch.stack(single).sum() / 4)
    torch.testing.assert_close(together.loss.detach(), parts["lm_loss"] + parts["grounding_loss"])
    assert single[2] == 0
    assert single[3] == 0
    assert {"dice", "focal", "box_l1", "box_giou", "score"} <= parts.keys()


@pytest.mark.parametrize("kept", [[0], [1], [2], [3]])
def test_every_parameter_has_a_gradient_whatever_the_batch_holds(kept):
    model = grounded_model()
    for parameter in model.instance_segmenter.mask_parameters():
        parameter.requires_grad_(False)
    samples = [mixed_samples()[index] for index in kept]
    labels = [mixed_labels()[index] for index in kept]
    _, gradients = loss_and_gradients(model, batch_of(samples), labels)
    assert gradients.keys() == {n for n, p in model.named_parameters() if p.requires_grad}
    assert all(gradient.isfinite().all() for gradient in gradients.values())


def test_phrases_without_a_label_teach_nothing():
    model, samples = grounded_model(), mixed_samples()
    labels = mixed_labels()
    _, reference = loss_and_gradients(model, batch_of(samples), labels)
    labels[0]["ignore"] = torch.zeros_like(labels[0]["masks"])
    labels[0]["ignore"][:, :, :, :2] = True
    _, ignoring = loss_and_gradients(model, batch_of(samples), labels)
    name = "segmenter.mask_decoder.prompt_head.weight"
    assert not torch.allclose(reference[name], ignoring[name])
    labels[0]["masks"][:, :, :, :2] = True
    _, changed = loss_and_gradients(model, batch_of(samples), labels)
    torch.testing.assert_close(changed[name], ignoring[name])


def test_segmenters_stay_in_float32_next_to_a_half_precision_decoder(tmp_path):
    grounded_model().save_pretrained(tmp_path)
    model = VividMedForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16).train()
    assert model.model.norm.weight.dtype == torch.bfloat16
    grounding = (model.segmenter, model.instance_segmenter, model.grounding_projection)
    assert {p.dtype for module in grounding for p in module.parameters()} == {torch.float32}
    with torch.autocast("cpu", torch.bfloat16):
        loss, gradients = loss_and_gradients(model, batch_of(mixed_samples()), mixed_labels())
        found = model.eval().ground(
            **{k: v for k, v in batch_of(mixed_samples()).items() if "label" not in k}
        )
    assert loss.isfinite()
    assert gradients["segmenter.mask_decoder.prompt_head.weight"].dtype == torch.float32
    assert found.masks[0].dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask_phrases": torch.tensor([0, 3])}, "name phrase 3 but its text has 3 phrases"),
        ({"masks": torch.zeros(2, 8, 16, 8, dtype=torch.bool)}, "masks have shape .* on an image of size"),
        ({"masks": torch.zeros(1, 8, 16, 16, dtype=torch.bool)}, "there are 2 mask phrases"),
    ],
)
def test_labels_that_do_not_fit_are_refused(change, message):
    labels = mixed_labels()
    labels[0] |= change
    with pytest.raises(VividMedError, match=f"sample 0.*{message}"):
        grounded_model()(**batch_of(mixed_samples()), grounding_labels=labels)


def test_labels_for_a_segmenter_that_the_model_lacks_are_refused():
    model = grounded_model(segmenter_config=SEGMENTER)
    with pytest.raises(VividMedError, match="box_phrases but the model has no instance_segmenter"):
        model(**batch_of(mixed_samples()), grounding_labels=mixed_labels())
    with pytest.raises(VividMedError, match="no segmenters and cannot ground"):
        VividMedForCausalLM(tiny_config()).ground(torch.ones(1, 2, dtype=torch.long), [], torch.zeros(0, 3))


# With a real processor


@pytest.fixture(scope="module")
def processor() -> VividMedProcessor:
    return VividMedProcessor.tiny()


@pytest.fixture(scope="module")
def talkative(processor) -> VividMedForCausalLM:
    torch.manual_seed(1)
    model = VividMedForCausalLM(VividMedConfig.tiny(len(processor.tokenizer), grounding=True)).eval()
    model.config.check_tokenizer(processor.tokenizer)
    return model


def write(model, processor, batch, **options):
    options = {"max_new_tokens": 16, "logits_processor": [PhraseEveryFourTokens(model.config)]} | options
    return model.generate_grounded(**batch, processor=processor, **options)


@pytest.fixture(scope="module")
def volume() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (9, 70, 50), dtype=np.uint8)


def test_generate_grounded_places_phrases_on_the_original_grid(talkative, processor, volume):
    picture = np.random.default_rng(1).integers(0, 255, (40, 90), dtype=np.uint8)
    batch = processor(
        images=[volume, picture, None], text=["Describe<p> it</p>.", "Report?", "Hello?"], grounding=True
    )
    texts = write(talkative, processor, batch, grounding="both", score_threshold=0.0, mask_threshold=0.0)
    assert len(texts) == 3
    assert [len(text.phrases) for text in texts] == [4, 4, 4]
    for text, size in zip(texts, [(9, 70, 50), (1, 40, 90), None], strict=True):
        for phrase in text.phrases:
            assert text.text[phrase.start : phrase.end] == phrase.text
            if size is None:
                assert phrase.mask is None
                assert len(phrase.boxes) == 0
                continue
            assert phrase.mask.shape == size
            assert phrase.mask.dtype == bool
            assert phrase.boxes.shape[1] == 6
            assert (phrase.boxes[:, :3] >= 0).all()
            assert (phrase.boxes[:, 3:] <= size).all()
            assert (np.diff(phrase.scores) <= 0).all()
            assert phrase.boxes_mm.shape == phrase.boxes.shape


def test_a_batch_is_grounded_like_each_sample_by_itself(talkative, processor, volume):
    questions = ["Describe<p> it</p>.", "What is here in this image?"]
    options = {"grounding": "both", "score_threshold": 0.0, "mask_threshold": 0.4}
    batch = processor(images=[volume, volume[:4]], text=questions, grounding=True)
    together = write(talkative, processor, batch, **options)
    for image, question, text in zip([volume, volume[:4]], questions, together, strict=True):
        batch = processor(images=image, text=question, grounding=True)
        alone = write(talkative, processor, batch, **options)[0]
        assert alone.text == text.text
        assert len(alone.phrases) == len(text.phrases) > 0
        for ours, theirs in zip(text.phrases, alone.phrases, strict=True):
            np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=1e-3)
            np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-4)
            assert (ours.mask != theirs.mask).mean() < 1e-3


def test_grounding_can_be_switched_off_and_asks_for_its_inputs(talkative, processor, volume):
    batch = processor(images=volume, text="Report?")
    text = write(talkative, processor, batch, grounding="off")[0]
    assert text.phrases
    assert all(phrase.mask is None and len(phrase.boxes) == 0 for phrase in text.phrases)
    with pytest.raises(VividMedError, match="call the processor with grounding=True"):
        talkative.generate_grounded(**batch, processor=processor, max_new_tokens=4)
    with pytest.raises(VividMedError, match="grounding='maks' is unknown"):
        talkative.generate_grounded(**batch, processor=processor, grounding="maks")


def test_auto_gives_volumes_masks_and_pictures_boxes_where_there_are_any(talkative, processor, volume):
    picture = np.random.default_rng(1).integers(0, 255, (40, 90), dtype=np.uint8)
    batch = processor(images=[volume, picture], text=["Report?"] * 2, grounding=True)

    def forms(**thresholds):
        texts = write(talkative, processor, batch, **thresholds)
        return [{(p.mask is not None, len(p.boxes) > 0) for p in text.phrases} for text in texts]

    mask, boxes = {(True, False)}, {(False, True)}
    assert forms(mask_threshold=0.0, score_threshold=0.0) == [mask, boxes]
    assert forms(mask_threshold=0.0, score_threshold=1.0) == [mask, mask]
    assert forms(mask_threshold=1.0, score_threshold=0.0) == [boxes, boxes]
