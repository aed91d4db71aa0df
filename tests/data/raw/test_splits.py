import pytest

from vividmed.data.raw.splits import assign_splits, official_split, split_by_hash


@pytest.mark.parametrize("count", [2, 3, 5, 10, 40])
@pytest.mark.parametrize("owner", ["a", "b", "clinic"])
def test_a_small_set_always_holds_somebody_out_and_trains_on_somebody(owner: str, count: int):
    splits = assign_splits((f"{owner}:{i}", None) for i in range(count))
    wanted = {"train", "test"} | ({"validation"} if count > 2 else set())
    assert set(splits.values()) == wanted


def test_the_order_of_the_patients_does_not_matter():
    patients = [(f"a:{i}", None) for i in range(6)]
    assert assign_splits(patients) == assign_splits(reversed(patients))


def test_a_set_that_shares_patients_follows_the_hash_only():
    keys = [f"a:{i}" for i in range(5)]
    splits = assign_splits(((key, None) for key in keys), fill=False)
    assert splits == {key: split_by_hash(key) for key in keys} == dict.fromkeys(keys, "train")


def test_official_splits_stay_as_their_authors_made_them():
    assert assign_splits([("a:1", "train"), ("a:2", "train"), ("a:2", "validation")]) == {
        "a:1": "train",
        "a:2": "validation",
    }


def test_one_patient_alone_is_trained_on():
    assert assign_splits([("a:1", None), ("a:1", None)]) == {"a:1": "train"}


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"),
        ("val", "validation"),
        ("Validate", "validation"),
        (" valid ", "validation"),
        ("test", "test"),
        ("test1k", None),
        ("", None),
    ],
)
def test_splits_are_known_by_their_usual_names(name: str, split: str | None):
    assert official_split(name) == split
