"""Wrong and odd input to grounding: refused in one line that names the row and the field, or handled."""

import nibabel as nib
import numpy as np
import pytest
import torch

from tests.fixtures.grounding import grounding_model
from tests.fixtures.training import small_processor
from vividmed.data.batches.alignment import AlignmentCollator, SegmentationTransform
from vividmed.data.batches.grounding import GroundedCollator, GroundingTransform
from vividmed.data.conversations import build_conversation
from vividmed.data.conversations.settings import ConversationSettings, LocalizationSettings
from vividmed.data.masks import pack_mask
from vividmed.errors import VividMedError
from vividmed.inference.grounding import ground_phrase, ground_report
from vividmed.models.phrases.grounding import GroundingOutput

SIZE = (8, 32, 32)
SURE = ConversationSettings(localization=LocalizationSettings(grounding=1.0, modality=0.0))
INPUTS = ("input_ids", "token_type_ids", "position_ids", "attention_mask", "labels", "label_weights")
INPUTS += ("pixel_values", "patch_sizes", "pool_sizes", "grounding_values", "grounding_labels")


@pytest.fixture(scope="module")
def processor():
    return small_processor()


@pytest.fixture(scope="module")
def model(processor):
    return grounding_model(processor).eval()


def make_row(size=SIZE, **changes):
    """A volume with a lung that has a mask and a nodule that has a box."""
    mask = np.zeros(size, dtype=bool)
    mask[:, 4:12, 4:12] = True
    image = nib.Nifti1Image(np.random.default_rng(0).normal(0, 9, size[::-1]).astype(np.int16), np.eye(4))
    row = {
        "id": "case-7",
        "patient": "p",
        "images": [],
        "volumes": [image],
        "modality": "CT",
        "targets": ["left lung", "lung nodule"],
        "absent": [],
        "masks": [dict(pack_mask("left lung", mask))],
        "incomplete": [],
        "boxes": [{"target": "lung nodule", "box": [0, 4, 4, 1, 9, 9]}],
        "source": "made up",
        "licence": "none",
        "index": 0,
        "epoch": 0,
    }
    return row | changes


def collate(processor, *rows):
    def converse(kind, row, generator):
        return build_conversation(kind, row, generator=generator, settings=SURE)

    transform = GroundingTransform(seed=0, draw_conversation=converse)
    return GroundedCollator(processor, transform=transform, max_length=400)(rows)


def align(*rows):
    return AlignmentCollator(SegmentationTransform(image_processor=small_processor().image_processor))(rows)


OTHER_GRID = dict(pack_mask("left lung", np.ones((8, 32, 40), dtype=bool)))
WRONG_ROWS = {
    "mask of another grid": (
        {"masks": [OTHER_GRID]},
        "mask of 'left lung': x range 0 to 40 leaves the grid of 32",
    ),
    "damaged mask": (
        {"masks": [{**OTHER_GRID, "box": [0, 0, 0, 8, 32, 32], "bits": b"none"}]},
        "mask of 'left lung': bits are damaged",
    ),
    "box outside": ({"boxes": [{"target": "lung nodule", "box": [0, 0, 0, 9, 4, 4]}]}, "leaves the image"),
    "inverted box": ({"boxes": [{"target": "lung nodule", "box": [3, 0, 0, 2, 4, 4]}]}, "is inverted"),
    "unknown target": ({"targets": ["left wing"], "masks": [], "boxes": []}, "left wing"),
    "nothing to ask": (
        {"targets": [], "masks": [], "boxes": [], "modality": None},
        "neither targets nor a modality",
    ),
}


@pytest.mark.parametrize(("changes", "message"), WRONG_ROWS.values(), ids=WRONG_ROWS)
def test_wrong_row_is_refused_by_its_id(processor, changes, message):
    with pytest.raises(VividMedError, match=message) as caught:
        collate(processor, make_row(**changes))
    assert "case-7" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["mask of another grid", "damaged mask", "unknown target"])
def test_alignment_refuses_wrong_rows_by_their_id(name):
    changes, message = WRONG_ROWS[name]
    located = {"masks": [{"target": "left wing", **{k: OTHER_GRID[k] for k in ("box", "bits")}}]}
    with pytest.raises(VividMedError, match=message) as caught:
        align(make_row(**(changes | located if name == "unknown target" else changes)))
    assert "case-7" in str(caught.value)


@pytest.mark.parametrize("size", [(1, 32, 32), (2, 30, 20), (3, 5, 7)], ids=str)
def test_volumes_thinner_than_the_patch_train_and_ground(processor, model, size):
    mask = np.ones(size, dtype=bool)
    row = make_row(
        size,
        targets=["left lung"],
        boxes=[],
        masks=[dict(pack_mask("left lung", mask))],
    )
    batch = collate(processor, row)
    loss = model(**{name: batch[name] for name in INPUTS}).loss_components
    assert loss["dice"].isfinite()
    phrase = ground_phrase(model, processor, row["volumes"][0], "left lung", mask_threshold=0.0)
    assert phrase.mask.shape == size
    assert phrase.mask.all()


def test_row_without_targets_is_talked_about_without_grounding(processor, model):
    batch = collate(processor, make_row(targets=[], masks=[], boxes=[]))
    assert batch["grounding_labels"] == [{}]
    assert model(**{name: batch[name] for name in INPUTS}).loss.isfinite()


def test_alignment_of_a_row_without_targets_has_no_loss():
    batch = align(make_row(targets=[], masks=[], boxes=[]))
    assert batch["targets"] == [[]]
    assert batch["grounding_labels"] == [{}]


@pytest.mark.parametrize("phrase", ["腎臓", "\U0001fac1", "левое лёгкое", "  x\ty  ", "naïve ﬁnding"])
def test_phrases_that_the_vocabulary_lacks_are_grounded_all_the_same(processor, model, phrase):
    image = np.random.default_rng(0).integers(0, 255, (4, 20, 20), dtype=np.uint8)
    found = ground_phrase(model, processor, image, phrase)
    assert found.mask.shape == (4, 20, 20)
    report = ground_report(model, processor, image, f"Seen: <p>{phrase}</p>.")
    (placed,) = report.phrases
    assert report.text[placed.start : placed.end] == placed.text


def test_no_generated_text_stops_grounding(processor, model):
    """Whatever the model writes: random tokens with many markers, in any order."""
    generator = torch.Generator().manual_seed(0)
    image = np.random.default_rng(0).integers(0, 255, (4, 20, 20), dtype=np.uint8)
    batch = processor(images=[image] * 60, text=["?"] * 60, grounding=True)
    markers = processor.tokenizer.convert_tokens_to_ids(["<p>", "</p>", "<np>", "</np>"])
    ids = torch.randint(3, len(processor.tokenizer), (60, 12), generator=generator)
    marked = torch.rand(60, 12, generator=generator) < 0.5
    ids = torch.where(marked, torch.tensor(markers)[torch.randint(0, 4, (60, 12), generator=generator)], ids)
    counts = (ids == markers[1]).sum(1).tolist()
    size = tuple(batch["grounding_values"][0].shape[1:])
    output = GroundingOutput(
        masks=[torch.ones(count, *size) for count in counts],
        boxes=[torch.rand(count, 6, 6) for count in counts],
        box_logits=[torch.zeros(count, 6) for count in counts],
    )
    texts = processor.post_process_grounding(
        list(ids),
        output=output,
        first_prompts=[0] * 60,
        geometry=batch["geometry"],
        exclusive=False,
        mask_threshold=0.5,
        score_threshold=0.5,
    )
    assert len(texts) == 60
    assert any(text.phrases for text in texts)
    for text in texts:
        assert "<p>" not in text.text
        for phrase in text.phrases:
            assert text.text[phrase.start : phrase.end] == phrase.text
            assert phrase.mask.shape == (4, 20, 20)
