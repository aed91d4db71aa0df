"""The processor takes the usual arguments, image items and pipelines of transformers."""

import base64
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    TensorType,
    pipeline,
)

from vividmed.errors import VividMedError
from vividmed.models.configuration_vividmed import VividMedConfig
from vividmed.models.modeling_vividmed import VividMedForCausalLM
from vividmed.processing.processing_vividmed import VividMedProcessor

PROCESSOR = VividMedProcessor.tiny()
NOISE = np.random.default_rng(0)
PICTURE = Image.fromarray(NOISE.integers(0, 255, (200, 300), dtype=np.uint8))
VOLUME = NOISE.normal(size=(40, 64, 64)).astype(np.float32)


def ask(text: str, *images) -> list[dict]:
    return [
        {"role": "user", "content": [*({"type": "image"} for _ in images), {"type": "text", "text": text}]}
    ]


def test_the_usual_arguments_of_transformers_work():
    texts = ["What is the modality of this image?", "A mass?"]
    plain = PROCESSOR(images=[PICTURE, VOLUME], text=texts, grounding=True)
    length = plain["input_ids"].shape[1]
    for options in (
        {"padding": True},
        {"padding": "longest", "truncation": True},
        {"padding": None, "return_tensors": TensorType.PYTORCH},
        {"text_kwargs": {"padding": True}, "common_kwargs": {"return_tensors": "pt"}},
    ):
        batch = PROCESSOR(images=[PICTURE, VOLUME], text=texts, **{"grounding": True, **options})
        assert batch["input_ids"].tolist() == plain["input_ids"].tolist()
    padded = PROCESSOR(images=[PICTURE, VOLUME], text=texts, padding="max_length", max_length=length + 5)
    assert padded["input_ids"].shape == (2, length + 5)
    assert padded["attention_mask"].sum() == plain["attention_mask"].sum()
    assert PROCESSOR(text=texts, pad_to_multiple_of=16)["input_ids"].shape[1] % 16 == 0
    single = PROCESSOR(text=texts[0], padding=False, return_tensors=None)
    assert single["input_ids"] == PROCESSOR(text=texts[0])["input_ids"].tolist()
    grouped = PROCESSOR(images=PICTURE, text="What?", images_kwargs={"grounding": True})
    assert "grounding_values" in grouped
    images = PROCESSOR.image_processor(PICTURE, return_tensors="pt")
    assert images["pixel_values"][0].shape == plain["pixel_values"][0].shape


@pytest.mark.parametrize(
    "given",
    [
        {"image_mean": (1.0, 1.0, 1.0), "max_image_tokens": 9},
        {"images_kwargs": {"image_mean": [1.0, 1.0, 1.0], "max_image_tokens": 9}},
        {"common_kwargs": {"image_mean": (1.0, 1.0, 1.0)}, "images_kwargs": {"max_image_tokens": 9}},
        {"common_kwargs": {"max_image_tokens": 36, "image_mean": (1.0, 1.0, 1.0)}, "max_image_tokens": 9},
    ],
)
def test_settings_of_the_image_processor_count_for_one_call(given):
    before = PROCESSOR(images=PICTURE, text="What?")
    batch = PROCESSOR(images=PICTURE, text="What?", **given)
    assert batch["pixel_values"][0].max() <= 0
    assert batch["geometry"][0].num_patch_tokens <= 9 < before["geometry"][0].num_patch_tokens
    assert PROCESSOR.image_processor.max_image_tokens == 36
    images = PROCESSOR.image_processor(PICTURE, image_mean=(1.0, 1.0, 1.0), max_image_tokens=9)
    torch.testing.assert_close(images["pixel_values"], batch["pixel_values"])


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (
            {"padding": "longest", "text_kwargs": {"padding": False}},
            "padding is given by itself and in text_kwargs",
        ),
        (
            {"window": (40, 400), "images_kwargs": {"window": (0, 9)}},
            "window is given by itself and in images_",
        ),
        ({"windw": (40, 400)}, "unknown argument 'windw'; did you mean window?"),
        ({"images_kwargs": {"max_image_tokens": 0}}, "image processor: max_image_tokens=0"),
    ],
)
def test_arguments_given_twice_or_wrongly_are_named(given, problem):
    with pytest.raises(VividMedError, match=problem.replace("?", r"\?")):
        PROCESSOR(images=PICTURE, text="What?", **given)


def test_the_image_processor_names_an_unknown_argument():
    with pytest.raises(
        VividMedError, match="image processor: unknown argument 'do_rescale'; it takes patch_size"
    ):
        PROCESSOR.image_processor(PICTURE, do_rescale=True)


def test_a_batch_of_lists_converts_to_tensors_except_its_images():
    batch = PROCESSOR(images=[PICTURE, VOLUME], text=["What?", "Where?"], return_tensors=None)
    converted = batch.convert_to_tensors("pt")
    expected = PROCESSOR(images=[PICTURE, VOLUME], text=["What?", "Where?"])
    torch.testing.assert_close(converted["input_ids"], expected["input_ids"])
    assert isinstance(converted["pixel_values"], list)


@dataclass
class Item:
    type: str
    text: str | None = None
    image: object = None


@dataclass
class Spoken:
    role: str
    content: list
    tool_calls: list | None = None


def modelled(role: str, content: list):
    pydantic = pytest.importorskip("pydantic")
    return pydantic.create_model("Modelled", role=str, content=list)(role=role, content=content)


@pytest.mark.parametrize("message", [Spoken, modelled])
def test_messages_may_be_objects(message):
    expected = PROCESSOR(conversations=carrying(image=PICTURE))
    spoken = [message("user", [Item("image", image=PICTURE), {"type": "text", "text": "What is this?"}])]
    for batch in (
        PROCESSOR(conversations=spoken),
        PROCESSOR(conversations=[spoken]),
        PROCESSOR.apply_chat_template(spoken, tokenize=True, return_dict=True),
    ):
        assert batch["input_ids"].tolist() == expected["input_ids"].tolist()
        torch.testing.assert_close(batch["pixel_values"], expected["pixel_values"])
    text = PROCESSOR.apply_chat_template(spoken)
    assert text == PROCESSOR.apply_chat_template(carrying(image=PICTURE))


def test_a_system_message_is_refused_with_a_way_out():
    with pytest.raises(VividMedError, match="trained without system prompts; put its text into the first"):
        PROCESSOR(conversations=[{"role": "system", "content": "Be brief."}, *ask("What?")])


def test_processor_kwargs_of_the_chat_template_reach_the_call():
    options = {
        "tokenize": True,
        "return_dict": True,
        "processor_kwargs": {"grounding": True, "padding": True},
    }
    batch = PROCESSOR.apply_chat_template(carrying(image=PICTURE), **options)
    assert PROCESSOR.special_token_ids.grounding in batch["input_ids"]
    assert "grounding_values" in batch


def carrying(**image) -> list[dict]:
    item = {"type": image.pop("type", "image"), **image}
    return [{"role": "user", "content": [item, {"type": "text", "text": "What is this?"}]}]


def test_images_are_taken_from_urls_of_files_and_of_data(tmp_path):
    path = tmp_path / "an image.png"
    PICTURE.save(path)
    encoded = base64.b64encode(path.read_bytes()).decode()
    data = f"data:image/png;base64,{encoded}"
    expected = PROCESSOR(images=PICTURE, text="What is this?")
    for conversation in (
        carrying(url=str(path)),
        carrying(url=path.as_uri()),
        carrying(url=data),
        carrying(base64=encoded),
        carrying(type="image_url", image_url={"url": data}),
        carrying(type="image_url", image_url={"url": path.as_uri(), "detail": "high"}),
        carrying(type="image_url", image_url=str(path)),
    ):
        for batch in (
            PROCESSOR(conversations=conversation),
            PROCESSOR.apply_chat_template(conversation, tokenize=True, return_dict=True),
        ):
            assert batch["input_ids"].tolist() == expected["input_ids"].tolist()
            torch.testing.assert_close(batch["pixel_values"], expected["pixel_values"])


@pytest.mark.parametrize(
    ("image", "problem"),
    [
        ({"url": "data:image/png;base64"}, "is not a data URL"),
        ({"url": "data:image/png;base64,@@@"}, "not valid base64"),
        ({"url": "data:image/png;base64,AAAA"}, "not a 2D image or NIfTI file"),
        ({"type": "image_url", "image_url": {"url": "https://x.org/a.png"}}, "is a web address; download"),
        ({"type": "image_url", "image_url": "http://x.org/a.png"}, "is a web address; download"),
        ({"type": "image_url"}, "mention an image but none was given"),
        ({"image": 3}, "cannot read an image from a int"),
    ],
)
def test_images_that_cannot_be_taken_are_named(image, problem):
    with pytest.raises(VividMedError, match=problem) as caught:
        PROCESSOR(conversations=carrying(**image))
    assert "\n" not in str(caught.value)


def test_an_image_given_twice_is_refused():
    with pytest.raises(VividMedError, match="sample 0: images are given both in its messages and in images"):
        PROCESSOR(images=PICTURE, conversations=carrying(image=PICTURE))


@pytest.mark.parametrize(
    "template", ["{{ messages[0].missing.x }}", "{{ raise_exception('no') }}", "{% for %}", "{{ 1 / 0 }}"]
)
def test_a_broken_template_is_one_line(template):
    with pytest.raises(VividMedError, match="chat template: ") as caught:
        PROCESSOR.apply_chat_template(ask("What?"), chat_template=template)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def pipe():
    config = VividMedConfig.tiny(vocab_size=len(PROCESSOR.tokenizer))
    torch.manual_seed(0)
    model = VividMedForCausalLM(config).eval()
    return pipeline("image-text-to-text", model=model, processor=PROCESSOR, device="cpu")


def test_the_pipeline_takes_lists_and_batches(pipe):
    other = Image.fromarray(255 - np.asarray(PICTURE))
    chats = [carrying(image=PICTURE), carrying(image=other), ask("What is CT?")]
    options = {"max_new_tokens": 4, "return_full_text": False}
    alone = [pipe(text=chat, **options)[0]["generated_text"] for chat in chats]
    together = pipe(text=chats, batch_size=2, **options)
    assert [answer[0]["generated_text"] for answer in together] == alone
    pairs = pipe(images=[PICTURE, other], text=["What is this?"] * 2, **options)
    assert [answer["generated_text"] for answer in pairs] == alone[:2]
    grounded = pipe(text=chats[0], processor_kwargs={"grounding": True}, **options)
    assert isinstance(grounded[0]["generated_text"], str)
