import pytest
import torch

from tests.fixtures.training import MAX_LENGTH, make_row, small_model, small_processor
from vividmed.data.batches.collator import VividMedCollator
from vividmed.errors import VividMedError

PROCESSOR = small_processor()
ROWS = [make_row(number) for number in range(6)]
BROKEN = make_row(7) | {
    "id": "cut",
    "images": [{"bytes": b"\x89PNG no picture", "path": "cut.png"}],
    "volumes": [],
}


def collate(rows, **kwargs):
    return VividMedCollator(PROCESSOR, **{"max_length": MAX_LENGTH, **kwargs})(rows)


def model_inputs(batch):
    others = ("geometry", "sample_ids", "num_samples", "size")
    return {name: values for name, values in batch.items() if name not in others}


def spans(batch):
    """Row and number of each sample, in the order of ``sample_ids``."""
    mask = batch["attention_mask"]
    return [(row, number) for row in range(len(mask)) for number in range(1, int(mask[row].max()) + 1)]


def test_batch_equals_the_processor_on_all_rows():
    from vividmed.data.batches.examples import to_example

    examples = [to_example(row) for row in ROWS]
    expected = PROCESSOR(
        images=[example["images"] for example in examples],
        conversations=[example["messages"] for example in examples],
    )
    batch = collate(ROWS)
    for name in ("input_ids", "token_type_ids", "position_ids", "attention_mask", "labels", "label_weights"):
        assert torch.equal(batch[name], expected[name]), name
    for name in ("patch_sizes", "pool_sizes"):
        assert torch.equal(batch[name], expected[name]), name
    for ours, theirs in zip(batch["pixel_values"], expected["pixel_values"], strict=True):
        assert torch.equal(ours, theirs)
    assert batch["geometry"] == expected["geometry"]


def test_size_counts_tokens_labels_and_patches():
    batch = collate(ROWS)
    size = batch["size"]
    assert size.samples == len(ROWS)
    assert size.tokens == int(batch["attention_mask"].sum()) < batch["input_ids"].numel()
    assert size.supervised_tokens == int((batch["labels"] != -100).sum())
    grids = [
        [s // p for s, p in zip(image.shape[1:], patch, strict=True)]
        for image, patch in zip(batch["pixel_values"], batch["patch_sizes"].tolist(), strict=True)
    ]
    assert size.patches == sum(d * h * w for d, h, w in grids)


def test_packing_numbers_samples_and_restarts_positions():
    batch = collate(ROWS, packing=True)
    assert len(batch["input_ids"]) < len(ROWS)
    for mask, positions in zip(batch["attention_mask"], batch["position_ids"], strict=True):
        for number in range(1, int(mask.max()) + 1):
            own = positions[mask == number]
            assert own[0] == 0
            assert (own.diff() >= 0).all()
    assert sorted(batch["sample_ids"]) == sorted(row["id"] for row in ROWS)


def test_packing_equals_padding():
    model = small_model(PROCESSOR).eval()
    padded, packed = collate(ROWS), collate(ROWS, packing=True)
    with torch.no_grad():
        separate, together = (model(**model_inputs(batch)) for batch in (padded, packed))
    torch.testing.assert_close(together.loss, separate.loss, atol=1e-6, rtol=1e-6)
    # Samples in the packed batch stand in the order of sample_ids, one after the other.
    mask = packed["attention_mask"]
    order = [row["id"] for row in ROWS]
    for name, (row, number) in zip(packed["sample_ids"], spans(packed), strict=True):
        place = order.index(name)
        real = padded["attention_mask"][place].bool()
        torch.testing.assert_close(
            together.logits[row][mask[row] == number], separate.logits[place][real], atol=1e-5, rtol=1e-4
        )


@pytest.mark.parametrize("packing", [False, True])
def test_independent_turns_equal_conversations_of_one_turn(packing):
    model = small_model(PROCESSOR).eval()
    texts = ("What is it?", "A CT.", "Is the heart visible?", "No.", "Which plane?", "Axial.")
    turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
    rows = [{**row, "messages": turns[: 2 + 2 * (number % 3)]} for number, row in enumerate(ROWS)]
    single = [
        {**row, "id": f"{row['id']} {number}", "messages": row["messages"][2 * number :][:2]}
        for row in rows
        for number in range(len(row["messages"]) // 2)
    ]
    together, separate = collate(rows, independent_turns=True, packing=packing), collate(single)
    assert len(together["pixel_values"]) < len(separate["pixel_values"])
    with torch.no_grad():
        outputs = {id(batch): model(**model_inputs(batch)) for batch in (together, separate)}
    expected, found = outputs[id(separate)], outputs[id(together)]
    torch.testing.assert_close(found.loss, expected.loss, atol=1e-6, rtol=1e-6)
    places = spans(together)
    for place, name in enumerate(separate["sample_ids"]):
        row, number = name.rsplit(" ", 1)
        line, sample = places[together["sample_ids"].index(row)]
        of_turn = (together["attention_mask"][line] == sample) & (
            together["turn_ids"][line] == int(number) + 1
        )
        answer = of_turn & (together["labels"][line] != -100)
        torch.testing.assert_close(
            found.logits[line][answer],
            expected.logits[place][separate["labels"][place] != -100],
            atol=1e-5,
            rtol=1e-4,
        )


def test_batch_without_a_usable_row_becomes_a_spare_row_without_labels():
    batch = collate([BROKEN], on_bad_sample="skip", spare_rows=[BROKEN, ROWS[2]])
    assert batch["sample_ids"] == ["row-2"]
    assert (batch["labels"] == -100).all()
    model = small_model(PROCESSOR)
    names = ("input_ids", "token_type_ids", "position_ids", "attention_mask", "labels", "label_weights")
    loss = model(**{name: batch[name] for name in (*names, "pixel_values", "patch_sizes", "pool_sizes")}).loss
    assert loss.item() == 0
    with pytest.raises(VividMedError, match="no row of a whole batch"):
        collate([BROKEN], on_bad_sample="skip")


def test_long_answer_is_refused_or_cut_but_images_never_are():
    long = make_row(1) | {
        "messages": [ROWS[1]["messages"][0], {"role": "assistant", "content": "A mass. " * 60}]
    }
    with pytest.raises(VividMedError, match=r"row row-1: .*max_length=96"):
        collate([long])
    assert collate([long], truncation="answer")["input_ids"].shape[1] == 96
    with pytest.raises(VividMedError, match="too small for the images"):
        collate([long], truncation="answer", max_length=4)


def test_row_without_an_answer_is_named():
    with pytest.raises(VividMedError, match="row row-0: the conversation does not end with an answer"):
        collate([ROWS[0] | {"messages": ROWS[0]["messages"][:1]}])


def test_repeated_row_carries_no_labels():
    batch = collate([ROWS[0], ROWS[1] | {"repeated": True}])
    assert (batch["labels"][0] != -100).any()
    assert (batch["labels"][1] == -100).all()


def test_augmentation_is_a_function_of_seed_epoch_and_index():
    def patches(epoch, index, seed=1):
        row = make_row(3) | {"epoch": epoch, "index": index}
        return tuple(collate([row], augmentation_seed=seed)["patch_sizes"][0].tolist())

    draws = {(epoch, index): patches(epoch, index) for epoch in range(6) for index in range(6)}
    assert len(set(draws.values())) > 1
    assert all(patches(*key) == value for key, value in draws.items())
    assert {key: patches(*key, seed=2) for key in draws} != draws
    plain = patches(None, 0)
    assert all(patches(None, index) == plain for index in range(6))


def test_intensity_jitter_changes_only_training_rows_and_repeatably():
    def image(epoch):
        row = make_row(0) | {"epoch": epoch, "index": 0}
        return collate([row], augmentation_seed=1, intensity_jitter=0.3)["pixel_values"][0]

    plain = collate([make_row(0)])["pixel_values"][0]
    assert torch.equal(image(None), plain)
    assert torch.equal(image(1), image(1))
    assert not torch.equal(image(1), image(2))
    assert ((image(1) - plain).abs() <= 0.3 * plain.abs() + 0.3 + 1e-6).all()
