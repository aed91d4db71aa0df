import json
from collections import Counter
from itertools import islice

import numpy as np
import pytest
import yaml
from accelerate.data_loader import BatchSamplerShard
from datasets import Dataset, config
from PIL import Image
from torch.utils.data import BatchSampler, DataLoader

from vividmed.data.batches.examples import read_images
from vividmed.data.sampling.keyed_rows import KeyedRows, SampleKey
from vividmed.data.sampling.mixture import Mixture, load_mixture, sample_conversations
from vividmed.data.sampling.mixture_config import MixtureConfig, MixtureEntry
from vividmed.data.sampling.mixture_conversations import mixture_conversation
from vividmed.data.sampling.mixture_sampler import MixtureSampler, Stratum
from vividmed.data.sampling.mixture_stream import MixtureStream
from vividmed.data.schema import LOCALIZATION, VISION_LANGUAGE
from vividmed.errors import VividMedError

SIZES = {"organs": 7, "lesions": 5, "reports": 9}


def localization_rows(name, count, target):
    box = {"target": target, "box": [0, 0, 0, 1, 2, 2]}
    return [
        {
            **common(name, number),
            "targets": [target] if number % 3 == 0 else [],
            "absent": [] if number % 3 == 0 else [target],
            "masks": [],
            "boxes": [box] if number % 3 == 0 else [],
            "incomplete": [],
        }
        for number in range(count)
    ]


def report_rows(name, count):
    return [
        {
            **common(name, number),
            "plane": "PA",
            "messages": [
                {"role": "user", "content": "Report."},
                {"role": "assistant", "content": f"Findings: number {number}."},
            ],
            "kind": "report",
        }
        for number in range(count)
    ]


def common(name, number):
    picture = Image.fromarray(np.full((4, 4), number, dtype=np.uint8))
    return {
        "id": f"{name}-{number}",
        "patient": f"{name}-{number}",
        "images": [picture],
        "volumes": [],
        "modality": "X-ray",
        "source": name,
        "licence": "CC0",
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with three prepared data sets and a mixture of them."""
    folder = tmp_path_factory.mktemp("prepared")
    rows = {
        "organs": (localization_rows("organs", SIZES["organs"], "heart"), LOCALIZATION),
        "lesions": (localization_rows("lesions", SIZES["lesions"], "lung nodule"), LOCALIZATION),
        "reports": (report_rows("reports", SIZES["reports"]), VISION_LANGUAGE),
    }
    for name, (values, features) in rows.items():
        (folder / name).mkdir()
        Dataset.from_list(values, features=features).to_parquet(
            folder / name / "train-00000-of-00001.parquet"
        )
    mixture = {
        "seed": 11,
        "root": str(folder),
        "conversation": {"localization": {"grounding": 1.0, "modality": 0.0}},
        "datasets": [
            {"name": "organs", "kind": "localization", "weight": 2, "num_rows": SIZES["organs"]},
            {"name": "lesions", "kind": "localization", "num_rows": SIZES["lesions"]},
            {"name": "reports", "kind": "vision_language", "weight": 0.5, "num_rows": SIZES["reports"]},
        ],
    }
    (folder / "mixture.yaml").write_text(yaml.safe_dump(mixture))
    (folder / "stage.yaml").write_text("learning_rate: 1.0e-3\nmixture: mixture.yaml\n")
    return folder


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        # A stream rests for seconds after each pass, which here is a few rows.
        patch.setattr(config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)
        yield


@pytest.fixture(scope="module")
def mixture(root):
    return load_mixture(root / "mixture.yaml")


def strata(*sizes, masses=None):
    edges = np.cumsum([0, *sizes])
    return [
        Stratum(name=f"set {i}", indices=np.arange(edges[i], edges[i + 1]), mass=(masses or sizes)[i])
        for i in range(len(sizes))
    ]


def epochs(order, count):
    keys = []
    for epoch in range(count):
        order.set_epoch(epoch)
        keys.append(list(order))
    return keys


def test_data_sets_are_drawn_in_proportion_to_weight_times_size():
    order = MixtureSampler(strata(100, 300, 10, masses=[200.0, 300.0, 500.0]), seed=0, batch_size=20_000)
    indices = np.array([key.row for key in order])
    assert len(indices) == 20_000
    shares = [np.mean(indices < 100), np.mean((indices >= 100) & (indices < 400)), np.mean(indices >= 400)]
    np.testing.assert_allclose(shares, [0.2, 0.3, 0.5], atol=0.02)


def test_every_row_comes_once_before_any_comes_again():
    order = MixtureSampler(strata(6, 11), seed=5)
    keys = [key for epoch in epochs(order, 40) for key in epoch]
    assert len(set(keys)) == len(keys)
    for members in (range(6), range(6, 17)):
        drawn = [key for key in keys if key.row in members]
        passes = len(drawn) // len(members)
        assert passes > 10
        for number in range(passes):
            one = drawn[number * len(members) : (number + 1) * len(members)]
            assert {key.row for key in one} == set(members)
            assert {key.epoch for key in one} == {number}
        firsts = {tuple(key.row for key in drawn[n * len(members) :][: len(members)]) for n in range(passes)}
        assert len(firsts) > passes // 2


def test_order_depends_on_the_seed_and_on_no_global_state():
    first = list(MixtureSampler(strata(20, 30), seed=1))
    np.random.seed(0)
    assert list(MixtureSampler(strata(20, 30), seed=1)) == first
    assert list(MixtureSampler(strata(20, 30), seed=2)) != first


def test_epoch_is_a_whole_number_of_steps_and_loses_nothing_at_its_end():
    whole = [key for epoch in epochs(MixtureSampler(strata(5, 8), seed=1), 8) for key in epoch]
    stepped = [
        key for epoch in epochs(MixtureSampler(strata(5, 8), seed=1, batch_size=4), 6) for key in epoch
    ]
    assert len(stepped) == 6 * 16
    assert stepped == whole[:96]


@pytest.mark.parametrize("position", [0, 1, 13, 4095, 4096, 9001])
def test_order_resumes_at_any_sample(position):
    length = 2000
    whole = [key for epoch in epochs(MixtureSampler(strata(700, 1300), seed=3), 6) for key in epoch]
    assert len(whole) == 6 * length
    state = MixtureSampler(strata(700, 1300), seed=3).state_dict(position)
    resumed = MixtureSampler(strata(700, 1300), seed=3)
    resumed.load_state_dict(state)
    keys = []
    for epoch in range(position // length, 6):
        resumed.set_epoch(epoch)
        keys += list(resumed)
    assert keys == whole[position:]


def test_state_says_how_far_the_order_was_drawn():
    order = MixtureSampler(strata(5, 8), seed=1)
    whole = list(order)
    assert list(islice(order, 4)) == whole[:4]
    resumed = MixtureSampler(strata(5, 8), seed=1)
    resumed.load_state_dict(order.state_dict())
    assert list(resumed) == whole[4:]


def test_state_of_another_mixture_is_refused():
    state = MixtureSampler(strata(5, 8), seed=1).state_dict()
    for other in (
        MixtureSampler(strata(5, 9), seed=1),
        MixtureSampler(strata(5, 8), seed=2),
        MixtureSampler(strata(5, 8, masses=[1.0, 1.0]), seed=1),
    ):
        with pytest.raises(VividMedError, match="the state belongs to another mixture"):
            other.load_state_dict(state)


@pytest.mark.parametrize("num_processes", [1, 2, 4])
def test_global_batches_are_the_same_for_any_number_of_processes(num_processes):
    order = MixtureSampler(strata(40, 60), seed=7, batch_size=8)
    whole = list(order)
    per_process = 8 // num_processes
    shares = [
        list(BatchSamplerShard(BatchSampler(order, per_process, drop_last=False), num_processes, index))
        for index in range(num_processes)
    ]
    steps = [[key for share in shares for key in share[step]] for step in range(len(whole) // 8)]
    assert steps == [whole[start : start + 8] for start in range(0, len(whole), 8)]


@pytest.mark.parametrize("workers", [0, 2])
def test_rows_come_in_the_same_order_for_any_number_of_workers(mixture, workers):
    loader = DataLoader(
        KeyedRows(mixture), sampler=mixture.order(), num_workers=workers, batch_size=4, collate_fn=list
    )
    seen = [(row["epoch"], row["index"], row["id"]) for batch in loader for row in batch]
    assert seen == [(key.epoch, key.row, mixture[key]["id"]) for key in mixture.order()]
    assert len(seen) == sum(SIZES.values())


def test_rows_name_their_data_set_and_kind(mixture):
    assert len(mixture) == sum(SIZES.values())
    assert Counter(mixture[i]["dataset"] for i in range(len(mixture))) == SIZES
    row = mixture[SampleKey(3, 8)]
    assert (row["dataset"], row["row_kind"], row["epoch"], row["index"]) == ("lesions", "localization", 3, 8)
    assert row["id"] == "lesions-1"
    with pytest.raises(IndexError):
        mixture[len(mixture)]


def test_weights_of_the_file_decide_how_often_a_data_set_comes(mixture):
    masses = {stratum.name: stratum.mass for stratum in mixture.strata}
    assert masses == {"organs": 14.0, "lesions": 5.0, "reports": 4.5}


def test_a_data_set_counts_by_cases_where_a_case_gives_several_rows():
    entry = MixtureEntry(name="brats", row_kind="localization", weight=0.2, rows_per_case=4)
    assert entry.mass(400) == pytest.approx(20.0)


def test_negative_rows_get_their_share(root):
    entries = (
        MixtureEntry(name="lesions", row_kind="localization", negative_fraction=0.1),
        MixtureEntry(name="reports", row_kind="vision_language"),
    )
    mixture = load_mixture(MixtureConfig(entries=entries, root=str(root)))
    keys = [key for epoch in epochs(mixture.order(), 600) for key in epoch]
    rows = {index: mixture[index] for index in range(len(mixture))}
    lesions = [rows[key.row] for key in keys if rows[key.row]["dataset"] == "lesions"]
    assert len(lesions) / len(keys) == pytest.approx(5 / 14, abs=0.02)
    assert np.mean([not row["targets"] for row in lesions]) == pytest.approx(0.1, abs=0.02)
    assert {row["id"] for row in lesions} == {f"lesions-{i}" for i in range(5)}


def test_negative_share_that_cannot_be_kept_is_refused(root):
    entry = MixtureEntry(name="organs", row_kind="localization", negative_fraction=0.1)
    mixture = load_mixture(MixtureConfig(entries=(entry,), root=str(root)))
    with pytest.raises(VividMedError, match="organs: every row is without a positive finding"):
        mixture.order()


def test_reports_are_negative_when_their_list_of_findings_has_no_yes():
    entry = MixtureEntry(name="cxr", row_kind="vision_language", negative_fraction=0.5)
    rows = report_rows("cxr", 4)
    for row, answer in zip(rows, ("edema: no", "edema: yes", "edema: uncertain", None), strict=True):
        if answer:
            row["messages"] += [
                {"role": "user", "content": "?"},
                {"role": "assistant", "content": f"Results: {answer}."},
            ]
    mixture = Mixture(MixtureConfig(entries=(entry,)), [Dataset.from_list(rows, features=VISION_LANGUAGE)])
    positive, negative = mixture.strata
    assert negative.indices.tolist() == [0, 2]
    assert positive.indices.tolist() == [1, 3]


def test_conversation_of_a_row_is_a_function_of_its_key(mixture, root):
    again = load_mixture(root / "mixture.yaml")
    for key in mixture.order():
        assert mixture.conversation(mixture[key]) == again.conversation(again[key])
    row = mixture[SampleKey(0, 0)]
    assert any(mixture.conversation({**row, "epoch": e}) != mixture.conversation(row) for e in range(1, 20))


def test_samples_are_the_first_of_training(mixture, root):
    samples = sample_conversations(root / "stage.yaml", 30)
    assert len(samples) == 30
    keys = [key for epoch in epochs(mixture.order(), 2) for key in epoch]
    for sample, key in zip(samples, keys, strict=False):
        row = mixture[key]
        assert (sample.dataset, sample.row["id"]) == (row["dataset"], row["id"])
        assert sample.conversation == mixture.conversation(row)
        assert sample.row["images"]


def stream_keys(root, count, *, start=0, workers=0, **options):
    stream = MixtureStream(root / "mixture.yaml", batch_size=3, buffer_size=4, **options)
    stream.load_state_dict(stream.state_dict(start))
    loader = DataLoader(stream, batch_size=3, num_workers=workers, collate_fn=list)
    rows = [row for batch in islice(loader, count // 3) for row in batch]
    return [(row["dataset"], row["id"], row["epoch"], row["index"]) for row in rows]


def test_stream_gives_every_row_of_a_pass_in_shuffled_order(root):
    keys = stream_keys(root, 300)
    for name, size in SIZES.items():
        drawn = [key for key in keys if key[0] == name]
        assert len(drawn) >= 2 * size
        ids = [f"{name}-{i}" for i in range(size)]
        assert sorted(key[1] for key in drawn[:size]) == ids
        assert sorted(key[1] for key in drawn[size : 2 * size]) == ids
        assert [key[1] for key in drawn[:size]] != [key[1] for key in drawn[size : 2 * size]]
    assert len({key[2:] for key in keys}) == len(keys)


@pytest.mark.parametrize("workers", [1, 2])
def test_stream_has_the_same_order_for_any_number_of_workers(root, workers):
    assert stream_keys(root, 60, workers=workers) == stream_keys(root, 60)


def test_stream_deals_batches_out_to_processes(root):
    whole = stream_keys(root, 60)
    shares = [stream_keys(root, 30, workers=w, process_index=w, num_processes=2) for w in range(2)]
    dealt = [
        key
        for pair in zip(*[zip(*[iter(s)] * 3, strict=True) for s in shares], strict=True)
        for b in pair
        for key in b
    ]
    assert dealt == whole


def test_stream_resumes_at_any_sample(root):
    whole = stream_keys(root, 120)
    for start in (1, 8, 50):
        assert stream_keys(root, 60, start=start) == whole[start : start + 60]


def test_stream_decodes_images_and_draws_conversations_as_the_mixture_does(root, mixture):
    stream = MixtureStream(root / "mixture.yaml", batch_size=1)
    for row in islice(stream, 12):
        assert read_images(row)[0].array.max() == int(row["id"].rpartition("-")[2])
        assert stream.conversation(row) == mixture.conversation(row)


def test_stream_with_a_wrong_or_unknown_number_of_rows_is_refused(root, tmp_path):
    entry = MixtureEntry(name="organs", row_kind="localization", num_rows=4)
    stream = MixtureStream(MixtureConfig(entries=(entry,), root=str(root)), batch_size=1)
    with pytest.raises(VividMedError, match="organs: the stream has 7 rows, but 4 were stated"):
        list(islice(stream, 10))
    (tmp_path / "train.jsonl").write_text(json.dumps(dict.fromkeys(LOCALIZATION)) + "\n")
    entry = MixtureEntry(name="organs", row_kind="localization", path=str(tmp_path))
    with pytest.raises(VividMedError, match="organs: the stream does not state how many rows it has"):
        MixtureStream(MixtureConfig(entries=(entry,)), batch_size=1)
    entry = MixtureEntry(name="lesions", row_kind="localization", num_rows=5, negative_fraction=0.5)
    with pytest.raises(VividMedError, match="lesions: negative_fraction cannot be kept when streaming"):
        MixtureStream(MixtureConfig(entries=(entry,), root=str(root)), batch_size=1)


def test_stream_counts_the_rows_of_parquet_files_itself(root):
    entries = tuple(MixtureEntry(name=name, row_kind="localization") for name in ("organs", "lesions"))
    stream = MixtureStream(MixtureConfig(entries=entries, root=str(root)), batch_size=1)
    assert stream.sizes == [SIZES["organs"], SIZES["lesions"]]


def test_stream_refuses_the_state_of_another_one(root):
    state = MixtureStream(root / "mixture.yaml", batch_size=3, buffer_size=4).state_dict(6)
    with pytest.raises(VividMedError, match="the state belongs to another mixture"):
        MixtureStream(root / "mixture.yaml", batch_size=3, buffer_size=5).load_state_dict(state)


def test_only_rows_of_a_mixture_get_its_conversations(root, mixture):
    row = mixture[SampleKey(0, 0)]
    assert mixture_conversation(mixture, row) == mixture.conversation(row)
    stream = MixtureStream(root / "mixture.yaml", batch_size=1)
    assert mixture_conversation(stream, row) == mixture.conversation(row)
    evaluated = KeyedRows(mixture.rows[0])[0]
    assert mixture_conversation(mixture, evaluated) is None
    assert mixture_conversation(mixture.rows[0], evaluated) is None


def test_missing_file_or_data_set_is_named(tmp_path, root):
    with pytest.raises(VividMedError, match=r"none.yaml: cannot be read"):
        MixtureConfig.from_yaml(tmp_path / "none.yaml")
    path = tmp_path / "mixture.yaml"
    path.write_text("datasets: [{name: organs, kind: localization}]")
    with pytest.raises(VividMedError, match="organs: no path is given and the mixture has no root"):
        load_mixture(path)
    with pytest.raises(VividMedError, match=r"organs: .*cannot be loaded"):
        load_mixture(path, root=str(tmp_path / "nowhere"))
    assert len(load_mixture(path, root=str(root))) == SIZES["organs"]


def test_rows_of_another_kind_are_refused(tmp_path, root):
    path = tmp_path / "mixture.yaml"
    path.write_text("datasets: [{name: reports, kind: localization}]")
    with pytest.raises(VividMedError, match=r"reports: .*lacks the column 'targets' of localization rows"):
        load_mixture(path, root=str(root))
