"""Publishing data sets to a live Hub on loopback, and loading them, with the real clients."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from tests.data.own.test_layouts import VERSION_2, write_nnunet
from tests.fixtures.hub.client import ClientError
from tests.fixtures.hub.folders import (
    AFFINE,
    CLOSED,
    CREDENTIALED,
    ON_REQUEST,
    OPEN,
    make_model,
    make_row,
    prepare,
)
from tests.fixtures.hub.pushes import push, refused_push
from tests.fixtures.miniatures import write_table
from vividmed.cli.main import main
from vividmed.data.terms import write_terms
from vividmed.hub.dataset_cards import REDISTRIBUTION_NOTICE


def test_private_data_set_loads_with_plain_datasets_also_streaming_at_its_revision(
    hub, publisher, nobody, stranger, tmp_path
):
    folder = prepare(tmp_path / "set")
    published = push(publisher, folder, "tester/private-set")
    assert published["visibility"] == "private"
    assert hub.repos["dataset", "tester/private-set"].private
    for streaming in (False, True):
        loaded = publisher(
            "load",
            repo_id="tester/private-set",
            split="train",
            streaming=streaming,
            revision=published["revision"],
        )
        assert loaded["ids"] == ["case-0", "case-1", "case-2", "case-3"]
        assert np.allclose(loaded["affines"], [AFFINE, AFFINE])
        expected = [float(make_row(n, volume=True)["volumes"][0].get_fdata().sum()) for n in (0, 2)]
        assert loaded["sums"] == expected
        assert loaded["picture_sizes"] == [[6, 5], [6, 5]]
        assert loaded["masks"] == [1, 1, 1, 1]
    for other in (nobody, stranger):
        with pytest.raises(ClientError) as caught:
            other("load", repo_id="tester/private-set", split="train")
        assert caught.value.kind == "DatasetNotFoundError"


def test_a_data_set_of_two_configurations_is_pushed_whole(hub, publisher, tmp_path):
    folder = write_nnunet(tmp_path / "Dataset001_Liver", VERSION_2)
    reports = [{"case": f"c{n}", "report": "The liver is large. Normal spleen."} for n in range(1, 5)]
    write_table(folder / "reports.csv", reports)
    renames = ["--map", "whole liver=liver", "--map", "liver_tumour=liver tumor"]
    assert main(["prepare", "nnunet", str(folder), *renames, "--output", str(tmp_path / "out")]) == 0
    published = push(publisher, tmp_path / "out", "tester/two-set", terms=None)
    assert published["visibility"] == "private"
    files = hub.files("dataset", "tester/two-set")
    parts = {name.rpartition("/")[0] for name in files if name.endswith(".parquet")}
    assert len(parts) == 2
    assert len(publisher("load", repo_id="tester/two-set", split="train")["ids"]) == 2
    assert refused_push(publisher, tmp_path / "out", "tester/two-set", terms=None, public=True)


def test_public_data_set_is_read_by_everyone_without_this_project(hub, publisher, nobody, tmp_path):
    published = push(publisher, prepare(tmp_path / "set"), "tester/public-set", public=True)
    assert published["visibility"] == "public"
    loaded = nobody("load", repo_id="tester/public-set", split="test", streaming=True)
    assert loaded["ids"] == ["case-4", "case-5"]
    assert not loaded["project_imported"]


def test_only_what_is_listed_leaves(hub, publisher, tmp_path):
    push(publisher, prepare(tmp_path / "set"), "tester/listed-set")
    assert sorted(hub.files("dataset", "tester/listed-set")) == [
        ".gitattributes",
        "README.md",
        "data/test-00000-of-00001.parquet",
        "data/train-00000-of-00002.parquet",
        "data/train-00001-of-00002.parquet",
        "terms.json",
    ]


def test_a_revision_keeps_its_rows_after_a_later_push_which_leaves_no_stale_shard(hub, publisher, tmp_path):
    first = push(publisher, prepare(tmp_path / "first", shards=3), "tester/moving-set")["revision"]
    second = push(publisher, prepare(tmp_path / "second", shards=1), "tester/moving-set")["revision"]
    assert first != second
    assert publisher("pinned_revision", repo_id="tester/moving-set") == second
    rows = {
        revision: publisher("load", repo_id="tester/moving-set", split="train", revision=revision)["ids"]
        for revision in (first, second)
    }
    assert [len(rows[first]), len(rows[second])] == [6, 2]


def test_pushing_again_unchanged_sends_nothing(hub, publisher, tmp_path):
    folder = prepare(tmp_path / "set")
    first = push(publisher, folder, "tester/same-set")
    hub.uploads.clear()
    assert push(publisher, folder, "tester/same-set") == first
    assert hub.uploads == []


@pytest.mark.parametrize(
    ("terms", "options", "remedy"),
    [
        (CLOSED, {"public": True}, "keep it private"),
        (CLOSED, {"gated": True}, "keep it private"),
        (CREDENTIALED, {"gated": True}, "keep it private"),
        (ON_REQUEST, {"public": True}, "keep it private, or make it gated"),
    ],
)
def test_audience_that_the_terms_forbid_is_refused_before_anything_is_sent(
    hub, publisher, tmp_path, terms, options, remedy
):
    message = refused_push(
        publisher, prepare(tmp_path / "set", terms), "tester/refused-set", terms, **options
    )
    assert str(terms) in message
    assert message.endswith(remedy)
    assert hub.requests == []


def test_data_that_may_not_be_passed_on_can_be_private_and_its_card_says_so(hub, publisher, tmp_path):
    assert (
        push(publisher, prepare(tmp_path / "set", CLOSED), "tester/closed-set", CLOSED)["visibility"]
        == "private"
    )
    assert b"May not be redistributed" in hub.read("dataset", "tester/closed-set", "README.md")
    assert b'"redistribute": "no"' in hub.read("dataset", "tester/closed-set", "terms.json")


def test_card_that_hides_the_terms_is_refused(hub, publisher, tmp_path):
    message = refused_push(publisher, prepare(tmp_path / "set", OPEN), "tester/hidden-set", CLOSED)
    assert "README.md: does not say 'May not be redistributed'" in message


def test_existing_public_repository_takes_no_private_data(hub, publisher, tmp_path):
    push(publisher, prepare(tmp_path / "open"), "tester/seen-set", public=True)
    before = hub.files("dataset", "tester/seen-set")
    for name, terms in (("closed", CLOSED), ("again", OPEN)):
        message = refused_push(publisher, prepare(tmp_path / name, terms), "tester/seen-set", terms)
        assert "tester/seen-set exists and is public" in message
        assert str(terms) in message
    assert hub.files("dataset", "tester/seen-set") == before


def test_gated_data_is_seen_by_all_and_read_by_those_let_in(hub, publisher, stranger, tmp_path):
    folder = prepare(tmp_path / "set", ON_REQUEST)
    assert push(publisher, folder, "tester/gated-set", ON_REQUEST, gated=True)["visibility"] == "gated"
    with pytest.raises(ClientError):
        stranger("load", repo_id="tester/gated-set", split="test")
    hub.repos["dataset", "tester/gated-set"].readers.add("other")
    assert len(stranger("load", repo_id="tester/gated-set", split="test")["ids"]) == 2


def test_terms_that_differ_from_those_of_the_preparation_are_refused(hub, publisher, tmp_path):
    folder = prepare(tmp_path / "set", CLOSED)
    push(publisher, folder, "tester/kept-set", CLOSED)
    assert "terms.json: differs from the terms given" in refused_push(
        publisher, folder, "tester/kept-set", OPEN, public=True
    )


def test_identifying_text_stops_the_push_before_anything_is_sent(hub, publisher, tmp_path):
    folder = prepare(tmp_path / "set")
    with (folder / "README.md").open("a") as card:
        card.write("\nScanned on 2019-03-14.\n")
    message = refused_push(publisher, folder, "tester/dated-set")
    assert "date '2019-03-14' in README.md" in message
    assert hub.requests == []
    assert push(publisher, folder, "tester/dated-set", accept=["2019-03-14"])["visibility"] == "private"


def test_incomplete_folders_are_named_with_the_remedy(hub, publisher, tmp_path):
    folder = prepare(tmp_path / "set")
    assert "is not a folder" in refused_push(publisher, tmp_path / "none", "tester/set")
    (folder / "README.md").rename(folder / "CARD.md")
    assert "README.md: is missing" in refused_push(publisher, folder, "tester/set")
    (folder / "README.md").write_text("# No metadata\n")
    assert "no field 'license'" in refused_push(publisher, folder, "tester/set", public=True)
    shutil.rmtree(folder / "data")
    assert "contains no Parquet file" in refused_push(publisher, folder, "tester/set")
    assert hub.requests == []


def test_command_publishes_by_the_terms_in_the_folder_and_prints_the_pinned_load(hub, publisher, tmp_path):
    folder = prepare(tmp_path / "set")
    refused = publisher("command", arguments=["dataset", str(folder), "tester/command-set"])
    assert refused["status"] == 2
    assert refused["errors"].startswith("error: ")
    assert "terms.json: is missing" in refused["errors"]
    push(publisher, folder, "tester/command-set")
    done = publisher("command", arguments=["dataset", str(folder), "tester/command-set", "--public"])
    assert done["status"] == 0
    head = hub.repos["dataset", "tester/command-set"].branches["main"]
    assert "tester/command-set is public" in done["output"]
    assert f'load_dataset("tester/command-set", revision="{head}")' in done["output"]


def test_command_publishes_models(hub, publisher, tmp_path):
    folder = make_model(tmp_path / "model", CREDENTIALED)
    done = publisher("command", arguments=["model", str(folder), "tester/command-model", "--gated"])
    assert done["status"] == 0
    assert "is gated at commit" in done["output"]


@pytest.mark.parametrize(
    ("rows", "stated", "reason"),
    [
        ({"name": "signed-set"}, {}, "signed-set: licence unknown"),
        ({"licence": "DUA 1.0"}, {}, "its rows give the licence 'DUA 1.0'"),
        ({"name": "MIMIC-CXR-JPG"}, {}, "unknown"),
        ({}, {"licence": "CC0 1.0"}, "its rows give the licence 'CC BY 4.0'"),
    ],
)
def test_rows_that_disagree_with_the_terms_stay_private(hub, publisher, tmp_path, rows, stated, reason):
    folder = prepare(tmp_path / "set", replace(OPEN, **rows))
    terms = replace(OPEN, **stated)
    for audience in ("public", "gated"):
        message = refused_push(publisher, folder, "tester/mixed-set", terms, **{audience: True})
        assert reason in message
        assert message.endswith("keep it private")
    assert hub.requests == []
    assert push(publisher, folder, "tester/mixed-set", terms)["visibility"] == "private"


def test_terms_of_a_folder_are_enough_and_those_of_all_its_sources_count(hub, publisher, tmp_path):
    folder = prepare(tmp_path / "set", OPEN)
    write_terms(folder, [OPEN, CREDENTIALED])
    (folder / "README.md").write_text(f"---\nlicense: mit\n---\n{REDISTRIBUTION_NOTICE}\n")
    message = refused_push(publisher, folder, "tester/both-set", None, gated=True)
    assert str(CREDENTIALED) in message
    assert push(publisher, folder, "tester/both-set", None)["visibility"] == "private"
