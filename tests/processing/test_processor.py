import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoProcessor,
    AutoTokenizer,
    LlamaTokenizer,
)

from vividmed.errors import VividMedError
from vividmed.models.configuration_vividmed import VividMedConfig
from vividmed.processing.image_processing_vividmed import VividMedImageProcessor
from vividmed.processing.processing_vividmed import VividMedProcessor

PROCESSOR = VividMedProcessor.tiny()
NOISE = np.random.default_rng(0)
PICTURE = Image.fromarray(NOISE.integers(0, 255, (200, 300), dtype=np.uint8))
VOLUME = NOISE.normal(size=(40, 64, 64)).astype(np.float32)


def ask(text: str, *images) -> list[dict]:
    return [
        {"role": "user", "content": [*({"type": "image"} for _ in images), {"type": "text", "text": text}]}
    ]


def answered(question: str, answer: str) -> list[dict]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def test_a_training_batch_is_padded_on_the_right_and_consistent():
    batch = PROCESSOR(
        images=[PICTURE, VOLUME],
        conversations=[
            answered("What is the modality of this image?", "CT."),
            answered("A mass?", "No, there is no mass."),
        ],
    )
    length = batch["input_ids"].shape[1]
    for name in ("input_ids", "token_type_ids", "position_ids", "attention_mask", "labels", "label_weights"):
        assert batch[name].shape == (2, length)
        assert batch[name].dtype == (torch.float32 if name == "label_weights" else torch.int64)
    assert batch["attention_mask"][:, 0].tolist() == [1, 1]
    padding = batch["attention_mask"] == 0
    assert padding.any()
    assert (batch["labels"][padding] == -100).all()
    assert (batch["label_weights"][padding] == 0).all()
    for index, plan in enumerate(batch["geometry"]):
        assert (batch["token_type_ids"][index] == 1).sum() == plan.num_patch_tokens + 2
        assert batch["pixel_values"][index].shape == (3, *plan.model_size)
        assert batch["patch_sizes"][index].tolist() == list(plan.patch_size)


def test_a_generation_batch_is_padded_on_the_left_and_has_no_labels():
    batch = PROCESSOR(images=[PICTURE, VOLUME], text=["What is the modality of this image?", "A mass?"])
    assert batch["attention_mask"][:, -1].tolist() == [1, 1]
    assert batch["attention_mask"].min() == 0
    assert (batch["input_ids"][:, -1] == PROCESSOR.special_token_ids.system).all()
    assert not {"labels", "label_weights", "grounding_values"} & set(batch)
    right = PROCESSOR(
        images=[PICTURE, VOLUME],
        text=["What is the modality of this image?", "A mass?"],
        padding_side="right",
    )
    assert right["attention_mask"][:, 0].tolist() == [1, 1]
    for name in ("input_ids", "token_type_ids", "position_ids"):
        for row in range(2):
            assert batch[name][row][batch["attention_mask"][row] == 1].tolist() == (
                right[name][row][right["attention_mask"][row] == 1].tolist()
            )


def test_every_way_to_give_the_same_image_gives_the_same_batch(tmp_path):
    path = tmp_path / "image.png"
    PICTURE.save(path)
    question = "What is this?"
    carried = [
        {
            "role": "user",
            "content": [{"type": "image", "path": str(path)}, {"type": "text", "text": question}],
        }
    ]
    by_image = [
        {"role": "user", "content": [{"type": "image", "image": PICTURE}, {"type": "text", "text": question}]}
    ]
    batches = [
        PROCESSOR(images=PICTURE, text=question),
        PROCESSOR(images=[path], text=question),
        PROCESSOR(images=[[str(path)]], text=[question]),
        PROCESSOR(images=np.asarray(PICTURE), conversations=ask(question, PICTURE)),
        PROCESSOR(images=[PICTURE], conversations=[ask(question, PICTURE)]),
        PROCESSOR(conversations=carried),
        PROCESSOR(conversations=[by_image]),
    ]
    for batch in batches[1:]:
        assert batch["input_ids"].tolist() == batches[0]["input_ids"].tolist()
        torch.testing.assert_close(batch["pixel_values"], batches[0]["pixel_values"])


def test_samples_may_have_no_or_several_images():
    batch = PROCESSOR(
        images=[[PICTURE, VOLUME], None, PICTURE],
        conversations=[ask("Compare.", PICTURE, VOLUME), ask("What is CT?"), ask("What?", PICTURE)],
    )
    assert [types.max().item() for types in batch["token_type_ids"]] == [2, 0, 1]
    assert [plan.original_size[0] for plan in batch["geometry"]] == [1, 40, 1]
    text_only = PROCESSOR(text="What is CT?")
    assert text_only["pixel_values"] == []
    assert text_only["patch_sizes"].shape == (0, 3)


def test_grounding_is_asked_for_by_its_token_and_gives_the_image_twice():
    batch = PROCESSOR(images=PICTURE, text="What?", grounding=True)
    assert PROCESSOR.special_token_ids.grounding in batch["input_ids"]
    assert 0 <= batch["grounding_values"][0].min() <= batch["grounding_values"][0].max() <= 1
    assert PROCESSOR.special_token_ids.no_grounding in PROCESSOR(images=PICTURE, text="What?")["input_ids"]


def test_phrase_starts_weigh_five():
    batch = PROCESSOR(conversations=answered("A mass?", "A<p> mass</p>."), grounding=True)
    assert batch["label_weights"].max() == 5


def test_black_and_white_images_differ():
    black, white = (
        PROCESSOR(images=Image.new("L", (64, 64), v), text="What?")["pixel_values"][0] for v in (0, 255)
    )
    assert (black - white).abs().max() > 1


def test_the_number_of_tokens_is_known_from_the_shape():
    oriented = nib.Nifti1Image(VOLUME, np.diag([3.0, 0.8, 0.8, 1.0]))
    batch = PROCESSOR(images=[PICTURE, VOLUME, oriented], text=["What?"] * 3)
    counted = (batch["token_type_ids"] == 1).sum(dim=1).tolist()
    assert counted == [
        PROCESSOR.num_image_tokens((1, 200, 300)),
        PROCESSOR.num_image_tokens((40, 64, 64)),
        PROCESSOR.num_image_tokens((64, 64, 40), oriented.affine),
    ]


def test_long_answers_are_refused_or_cut_with_a_warning(caplog):
    conversation = answered("What?", "A mass in the left lung. " * 20)
    with pytest.raises(
        VividMedError, match=r"sample 0: .*max_length=60; raise max_length.*truncation='answer'"
    ):
        PROCESSOR(images=PICTURE, conversations=conversation, max_length=60)
    import logging

    transformers_logger = logging.getLogger("vividmed.processing.processing_vividmed")
    transformers_logger.addHandler(caplog.handler)
    batch = PROCESSOR(images=PICTURE, conversations=conversation, max_length=60, truncation="answer")
    transformers_logger.removeHandler(caplog.handler)
    assert batch["input_ids"].shape == (1, 60)
    assert "answer tokens were cut" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({}, "give either text .* or conversations"),
        ({"text": "A?", "conversations": ask("A?")}, "give either text"),
        ({"conversations": []}, "sample 0: conversation is empty"),
        ({"text": []}, "the user's text is empty"),
        ({"text": ["A?", ""]}, "sample 1: message 0: the user's text is empty"),
        (
            {"conversations": [ask("A?"), [{"role": "bot", "content": "x"}]]},
            "sample 1: message 0: role 'bot' is unknown",
        ),
        ({"conversations": 3}, "conversation is a int"),
        ({"conversations": ask("A?", PICTURE)}, "sample 0: its messages mention an image but none was given"),
        (
            {"images": [PICTURE, PICTURE], "conversations": ask("A?", PICTURE)},
            "mention 1 images but 2 were given",
        ),
        ({"images": [PICTURE], "text": ["A?", "B?"]}, "2 conversations but images for 1"),
        ({"images": PICTURE, "text": ["A?"]}, "give a list with one entry per sample"),
        ({"images": [None], "text": ["A?"]}, "images: every entry is None"),
        ({"images": [None], "text": "A?"}, "sample 0: an image is None"),
        ({"images": [[PICTURE, None], PICTURE], "text": ["A?", "B?"]}, "sample 0: an image is None"),
        ({"images": "", "text": "A?"}, "no such file"),
        ({"images": "a" * 5000 + ".png", "text": "A?"}, "not a usable path"),
        ({"images": "a\0b.png", "text": "A?"}, "no such file|not a usable path"),
        ({"text": ["A?", "A longer question?"], "padding": False}, "padding is off, but samples have"),
        ({"text": "A?", "padding": "max_length"}, "padding='max_length' needs max_length"),
        ({"text": "A?", "padding": "sideways"}, "padding='sideways' is not supported"),
        ({"text": "A?", "padding_side": "top"}, "padding_side='top' is not supported"),
        ({"text": "A?", "truncation": "sideways"}, "truncation='sideways' is not supported"),
        ({"text": "A?", "pading": True}, "unknown argument 'pading'; did you mean padding"),
        ({"text": "A?", "text_kwargs": {"pading": True}}, "unknown argument 'pading'"),
        ({"text": "A?", "text_kwargs": 3}, "text_kwargs is a int"),
        ({"conversations": [answered("A?", "B."), ask("A?")]}, "mixes conversations with and without"),
        ({"text": "A?", "return_tensors": "np"}, "return_tensors='np' is not supported"),
        ({"images": "missing.png", "text": "A?"}, "missing.png: no such file"),
        (
            {
                "conversations": [
                    {"role": "user", "content": [{"type": "image", "url": "https://x.org/a.png"}]}
                ]
            },
            "text is empty",
        ),
        (
            {
                "conversations": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "image", "url": "https://x.org/a.png"},
                            {"type": "text", "text": "A?"},
                        ],
                    }
                ]
            },
            "is a web address; download",
        ),
    ],
)
def test_wrong_calls_get_one_line_that_says_what_to_do(arguments, problem):
    with pytest.raises(VividMedError, match=problem) as caught:
        PROCESSOR(**arguments)
    assert "\n" not in str(caught.value)


def test_a_missing_tokenizer_is_named():
    with pytest.raises(VividMedError, match="the tokenizer is missing"):
        VividMedProcessor(VividMedImageProcessor(), None)
    with pytest.raises(VividMedError, match="lacks <sys>"):
        VividMedProcessor(VividMedImageProcessor(), LlamaTokenizer())


CONVERSATIONS = [
    ask("What is this?"),
    answered("What is this?", "This is a CT of the chest."),
    [*answered("A mass?", "<p> mass</p>: no."), *ask("A<p> cyst</p> then?")],
    [*answered("A mass?", "<5 mm nodule."), *answered("And?", " leading space.")],
    [*answered("One.\nTwo?", "Findings:\nA<p> mass</p>."), *answered("Three?", "No.")],
    [*answered("One.\nTwo?", "Findings:\nA mass."), *answered("Three?", "No.")],
    [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "One."},
                {"type": "image"},
                {"type": "text", "text": "Two?"},
            ],
        }
    ],
]


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("grounding", [False, True])
def test_the_chat_template_shows_the_text_that_the_call_builds(conversation, grounding):
    if "<p>" in str(conversation) and not grounding:
        with pytest.raises(
            VividMedError, match="sample 0: message . the text contains <p>".replace(" . ", " .: ")
        ):
            PROCESSOR.apply_chat_template(conversation)
        return
    has_image = "image" in str(conversation)
    batch = PROCESSOR(images=PICTURE if has_image else None, conversations=conversation, grounding=grounding)
    ids = batch["input_ids"][0][batch["token_type_ids"][0] == 0]
    text = PROCESSOR.apply_chat_template(conversation, grounding=grounding)
    assert PROCESSOR.tokenizer.encode(text, add_special_tokens=False) == ids.tolist()


def test_the_chat_template_builds_the_batch_of_the_call():
    conversation = [
        {"role": "user", "content": [{"type": "image", "image": PICTURE}, {"type": "text", "text": "What?"}]}
    ]
    expected = PROCESSOR(conversations=conversation)
    options = {"tokenize": True, "add_generation_prompt": True, "return_tensors": "pt"}
    batch = PROCESSOR.apply_chat_template(conversation, return_dict=True, **options)
    assert set(batch) == set(expected)
    assert batch["input_ids"].tolist() == expected["input_ids"].tolist()
    assert PROCESSOR.apply_chat_template(conversation, **options).tolist() == expected["input_ids"].tolist()
    with pytest.raises(VividMedError, match="cannot be continued"):
        PROCESSOR.apply_chat_template(conversation, tokenize=True, continue_final_message=True)


@pytest.mark.parametrize(
    "settings",
    [
        {"patch_size": None},
        {"max_image_tokens": "many"},
        {"max_image_tokens": 10**30},
        {"percentiles": [1, "x"]},
        {"image_std": 3},
        {"window": [float("nan"), 1]},
        "not a mapping",
    ],
)
def test_a_damaged_processor_is_one_line(tmp_path, settings):
    PROCESSOR.save_pretrained(tmp_path)
    path = tmp_path / "processor_config.json"
    saved = json.loads(path.read_text())
    saved["image_processor"] = saved["image_processor"] | settings if isinstance(settings, dict) else settings
    path.write_text(json.dumps(saved))
    with pytest.raises(VividMedError) as caught:
        VividMedProcessor.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


def test_generated_ids_become_clean_text_and_phrases():
    inputs = PROCESSOR(text=["What?", "What is this image?"])
    answer = PROCESSOR.tokenizer.encode("A<p> mass</p>.", add_special_tokens=False)
    generated = torch.cat([inputs["input_ids"], torch.tensor([[*answer, 2], [*answer, 2]])], dim=1)
    parsed = PROCESSOR.post_process_text(generated, prompt_length=inputs["input_ids"].shape[1])
    assert [p.text for p in parsed] == ["A mass.", "A mass."]
    assert parsed[0].phrases[0].text == "mass"
    assert PROCESSOR.batch_decode(torch.tensor([answer]), skip_special_tokens=True) == ["A mass."]


@pytest.mark.parametrize("auto", [VividMedProcessor, AutoProcessor])
def test_saving_and_loading_is_exact(tmp_path, auto):
    image_processor = VividMedImageProcessor(window=(40, 400), max_image_tokens=64)
    processor = VividMedProcessor(image_processor, PROCESSOR.tokenizer, phrase_start_weight=2.5)
    first, second = tmp_path / "first", tmp_path / "second"
    processor.save_pretrained(first)
    VividMedConfig.tiny(vocab_size=len(PROCESSOR.tokenizer)).save_pretrained(first)
    loaded = auto.from_pretrained(first)
    assert type(loaded) is VividMedProcessor
    assert loaded.to_dict() == processor.to_dict()
    assert loaded.chat_template == processor.chat_template
    arguments = {"images": PICTURE, "conversations": answered("A mass?", "A<p> mass</p>."), "grounding": True}
    ours, theirs = processor(**arguments), loaded(**arguments)
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, atol=0, rtol=0) if name != "geometry" else None
    assert theirs["geometry"] == ours["geometry"]
    loaded.save_pretrained(second)
    for file in second.iterdir():
        assert file.read_text() == (first / file.name).read_text()


def test_its_parts_load_through_their_auto_classes(tmp_path):
    PROCESSOR.save_pretrained(tmp_path)
    VividMedConfig.tiny(vocab_size=len(PROCESSOR.tokenizer)).save_pretrained(tmp_path)
    assert AutoImageProcessor.from_pretrained(tmp_path).to_dict() == PROCESSOR.image_processor.to_dict()
    assert AutoTokenizer.from_pretrained(tmp_path).get_vocab() == PROCESSOR.tokenizer.get_vocab()


def test_a_batch_moves_and_casts_as_one():
    batch = PROCESSOR(images=PICTURE, text="What?", grounding=True).to(dtype=torch.bfloat16)
    assert batch["pixel_values"][0].dtype == torch.bfloat16
    assert batch["input_ids"].dtype == torch.int64
    assert batch["geometry"][0].original_size == (1, 200, 300)


def test_the_tiny_processor_fits_the_tiny_model():
    config = VividMedConfig.tiny(vocab_size=len(PROCESSOR.tokenizer))
    config.check_tokenizer(PROCESSOR.tokenizer)
    assert tuple(config.vision_config.patch_size) == PROCESSOR.image_processor.patch_size


def test_the_template_ships_with_the_package():
    import vividmed.processing.processing_vividmed as module

    folder = Path(module.__file__).parent
    assert PROCESSOR.chat_template == (folder / "chat_template.jinja").read_text()
    assert (
        json.loads((folder / "tiny_tokenizer" / "tokenizer_config.json").read_text())["tokenizer_class"]
        == "LlamaTokenizer"
    )
