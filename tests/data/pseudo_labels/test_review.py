"""Decisions of readers: pages, tables, merging, agreement; and the rows that come out."""

import csv
import json
import math
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from tests.data.pseudo_labels.test_localizing import swapped
from tests.fixtures.grounded_reports import CREDENTIALED, body, endpoint, write_label_maps, write_rows
from vividmed.cli.main import main
from vividmed.data.loading import load_prepared
from vividmed.data.masks import unpack_mask
from vividmed.data.pseudo_labels.review import COLUMNS, agreement, items_of, read_decisions
from vividmed.data.pseudo_labels.sources import open_source
from vividmed.data.schema import validate_row
from vividmed.data.terms import read_terms
from vividmed.errors import VividMedError

REPORTS = [
    "Findings: The liver is normal. The left kidney is small.\nImpression: Small left kidney.",
    "Findings: The liver and the right kidney are normal. No effusion.",
]


def step(name: str, source: Path, output: Path, *arguments: str) -> int:
    return main(["ground-reports", name, "--input", str(source), "--output", str(output), *arguments])


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Everything up to ``localize``; kidneys are exchanged, so that they go to review."""
    folder = tmp_path_factory.mktemp("review")
    write_rows(folder / "rows", REPORTS)
    write_label_maps(folder / "maps", len(REPORTS), change=swapped)
    assert step("clean", folder / "rows", folder / "clean") == 0
    assert step("tag", folder / "clean", folder / "tag") == 0
    assert step("filter", folder / "tag", folder / "filter") == 0
    assert step("localize", folder / "filter", folder / "localize", "--masks", str(folder / "maps")) == 0
    return folder


def decide(path: Path, *lines: dict[str, str]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(lines)
    return path


def line(decision: str, *, case: int = 0, reader: str = "A", **changes: str) -> dict[str, str]:
    """A decision on the place of the kidney of a case."""
    kidney = ("left kidney", "right kidney")[case]
    values = {
        "id": f"clinic:case{case}",
        "item": "place 2",
        "text": kidney,
        "target": kidney,
        "decision": decision,
        "reader": reader,
    }
    return {**values, **changes}


def places(folder: Path, case: int = 0):
    study = open_source(str(folder)).load(case, case + 1)[0]
    return {place.target: place.verdict for place in study.places}


def test_rows_contain_what_all_checks_agreed_on_and_nothing_else(work):
    assert step("rows", work / "localize", work / "rows-out") == 0
    rows = load_prepared(str(work / "rows-out"), what="the rows", split="train")
    assert [row["id"] for row in rows] == ["clinic:case0", "clinic:case1"]
    for row in rows:
        validate_row("grounded_report", row)
        assert [mask["target"] for mask in row["masks"]] == ["liver"]
    first = rows[0]
    assert first["report"].startswith(
        "Findings: The <p>liver</p> is normal. The <p>left kidney</p> is small."
    )
    assert [phrase["targets"] for phrase in first["phrases"]] == [["liver"], [], []]
    _, labels = body()
    assert np.array_equal(unpack_mask(first["masks"][0], labels.shape), labels == 5)
    card = (work / "rows-out/README.md").read_text()
    for text in ("localizer: masks (totalsegmentator)", "other side: 2", "| liver | 2 |", "license: cc0-1.0"):
        assert text in card
    assert read_terms(work / "rows-out").name == "clinic"
    before = (work / "rows-out/data").stat().st_mtime_ns
    assert step("rows", work / "localize", work / "rows-out") == 0
    assert (work / "rows-out/data").stat().st_mtime_ns == before


def test_a_page_lists_what_needs_a_decision(work):
    assert step("review", work / "localize", work / "pages") == 0
    pages = sorted(path.name for path in (work / "pages").glob("*.html"))
    assert len(pages) == 3
    page = (work / "pages" / pages[0]).read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="panel-data">(.*?)</script>', page)[1])
    assert [(item["name"], item["target"]) for item in data["items"]] == [("place 2", "left kidney")]
    assert data["items"][0]["reasons"] == ["other side: 0% on the left"]
    index = (work / "pages/index.html").read_text(encoding="utf-8")
    assert all(name in index for name in pages if name != "index.html")


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
READER = """<script>(async () => {
  while (!document.body.dataset.ready) await new Promise((resolve) => setTimeout(resolve, 20));
  const type = (input, text) => { input.value = text; input.dispatchEvent(new Event("input")); };
  const seen = { hidden: document.querySelector(".edit").hidden, valid: byId("review").checkValidity() };
  type(byId("reader"), "Anna, M.D.");
  document.querySelector("input[value=edit]").click();
  seen.shown = !document.querySelector(".edit").hidden;
  type(document.querySelector("input[name$=new_target]"), "right kidney");
  type(document.querySelector("input[name$=comment]"), 'the "other" side');
  seen.progress = byId("progress").value;
  seen.csv = csv();
  document.body.innerHTML = "";
  document.body.dataset.seen = JSON.stringify(seen);
})();</script></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_decisions_made_in_a_browser_can_be_merged(work, tmp_path):
    assert step("review", work / "localize", tmp_path / "pages") == 0
    page = next(page for page in (tmp_path / "pages").glob("*.html") if "case0" in page.name)
    acted = page.with_name("acted.html")
    acted.write_text(page.read_text(encoding="utf-8").replace("</body>", READER), encoding="utf-8")
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    command += ["--virtual-time-budget=8000", "--dump-dom", acted.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    seen = json.loads(unescape(re.search(r'data-seen="([^"]*)"', dom)[1]))
    assert seen["hidden"]
    assert seen["shown"]
    assert not seen["valid"]  # a reader without a name cannot save
    assert seen["progress"] == "1 of 1 decided"
    table = tmp_path / "anna.csv"
    table.write_text(seen["csv"], encoding="utf-8")
    (decision,) = read_decisions(table)
    assert (decision.reader, decision.comment) == ("Anna, M.D.", 'the "other" side')
    assert step("review", work / "localize", tmp_path / "out", "--decisions", str(table)) == 0
    assert places(tmp_path / "out") == {"liver": "agreed", "right kidney": "accepted"}


@pytest.mark.parametrize(
    ("decisions", "verdict"),
    [
        ([line("accept")], {"liver": "agreed", "left kidney": "accepted"}),
        ([line("reject")], {"liver": "agreed", "left kidney": "rejected"}),
        ([line("edit", new_target="right kidney")], {"liver": "agreed", "right kidney": "accepted"}),
        ([line("accept"), line("reject", reader="B")], {"liver": "agreed", "left kidney": "review"}),
        (
            [line("reject"), line("accept")],
            {"liver": "agreed", "left kidney": "accepted"},
        ),  # the last one counts
        ([line("")], {"liver": "agreed", "left kidney": "review"}),
    ],
)
def test_decisions_are_merged(work, tmp_path, decisions, verdict):
    table = decide(tmp_path / "a.csv", *decisions)
    assert step("review", work / "localize", tmp_path / "out", "--decisions", str(table)) == 0
    assert places(tmp_path / "out") == verdict


def test_an_edited_phrase_has_the_words_that_the_reader_chose(work, tmp_path):
    edit = line("edit", item="phrase 1", text="liver", target="liver", new_text="The liver")
    table = decide(tmp_path / "a.csv", edit)
    assert step("review", work / "localize", tmp_path / "out", "--decisions", str(table)) == 0
    phrase = open_source(str(tmp_path / "out")).load(0, 1)[0].phrases[0]
    assert (phrase.text, phrase.verdict) == ("The liver", "accepted")
    assert step("rows", tmp_path / "out", tmp_path / "rows") == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decision": "maybe"}, "line 2: decision 'maybe' is unknown"),
        ({"decision": "edit"}, "an edit needs"),
        ({"decision": "edit", "new_target": "left kidny"}, "left kidney"),
        ({"decision": "accept", "id": "clinic:case9"}, "no study"),
        ({"decision": "accept", "item": "place 7"}, "place 7"),
        ({"decision": "accept", "target": "spleen"}, "decide on the pages of this run"),
        (
            {"decision": "edit", "item": "phrase 1", "text": "liver", "target": "liver", "new_text": "heart"},
            "heart",
        ),
    ],
)
def test_wrong_decisions_are_one_line(work, tmp_path, capsys, changes, message):
    table = decide(
        tmp_path / "a.csv",
        line("accept", **changes) if "decision" not in changes else {**line(""), **changes},
    )
    assert step("review", work / "localize", tmp_path / "out", "--decisions", str(table)) == 2
    assert message in capsys.readouterr().err


def test_two_readers_are_compared(work, tmp_path, capsys):
    tables = [
        decide(tmp_path / "a.csv", line("accept"), line("reject", case=1)),
        decide(tmp_path / "b.csv", line("accept", reader="B"), line("accept", case=1, reader="B")),
    ]
    judgements = [each for path in tables for each in read_decisions(path)]
    assert agreement(judgements) == [("A", "B", 2, 0.5, 0.0)]
    same = [each for each in judgements if each.decision == "accept" and each.id == "clinic:case0"]
    assert math.isnan(agreement(same)[0][4])
    names = [str(path) for path in tables]
    assert step("review", work / "localize", tmp_path / "out", "--decisions", *names) == 0
    assert "A and B: 2 items, 50.0% equal, Cohen's kappa 0.000" in capsys.readouterr().out
    assert places(tmp_path / "out", 1)["right kidney"] == "review"


def test_everything_can_be_reviewed(work):
    study = open_source(str(work / "localize")).load(0, 1)[0]
    assert [item.name for item in items_of(study, everything=True)] == [
        "phrase 1",
        "phrase 2",
        "phrase 3",
        "place 1",
        "place 2",
    ]


def test_rows_of_credentialed_data_keep_their_terms_and_stay_away_from_public_addresses(tmp_path, capsys):
    write_rows(tmp_path / "rows", REPORTS[:1], terms=CREDENTIALED)
    public = ["--endpoint", "http://8.8.8.8/v1", "--model", "m"]
    assert step("tag", tmp_path / "rows", tmp_path / "tag", *public) == 2
    error = capsys.readouterr().err
    assert "--confirm-terms 'clinic: Reports must not be passed on.'" in error
    assert not (tmp_path / "tag").exists()
    with endpoint(lambda messages, number: messages[-1]["content"]) as (url, seen):
        assert step("tag", tmp_path / "rows", tmp_path / "tag", "--endpoint", url, "--model", "m") == 0
    assert seen
    assert read_terms(tmp_path / "tag").access == "credentialed"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a step"),
        (["tidy"], "tidy"),
        (["tag"], "--input"),
        (["tag", "--input", "no/such/folder", "--output", "x"], "no/such/folder"),
        (["tag", "--input", "nowhere", "--output", "x"], "no such folder"),
        (
            ["localize", "--input", "a", "--output", "x", "--masks", "m", "--least-score", "nan"],
            "from 0 to 1",
        ),
        (["localize", "--input", "a", "--output", "x", "--masks", "m", "--program-timeout", "-1"], "above 0"),
        (["tag", "--input", "a", "--output", "x", "--timeout", "inf"], "above 0"),
        (["localize", "--input", "a", "--output", "x"], "one of the arguments"),
        (["tag", "--input", "a", "--output", "x", "--endpoint"], "expected one argument"),
    ],
)
def test_wrong_arguments_are_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["ground-reports", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "source", "output", "message"),
    [
        (
            "filter",
            "clean",
            "new",
            "filter needs the folder of tag or a later step, but the last step was clean",
        ),
        ("localize", "tag", "new", "localize needs the folder of filter"),
        ("localize", "rows", "new", "it is not the folder of a step"),
        ("rows", "filter", "new", "rows needs the folder of localize"),
        ("review", "rows", "new", "review needs the folder of tag"),
        ("tag", "clean", "clean", "is the --input"),
        ("tag", "clean", "filter", "contains the step filter"),
        ("tag", "clean", "rows", "contains a data set that tag has not written"),
        ("rows", "localize", "rows", "contains a data set that rows has not written"),
        ("rows", "localize", "tag", "contains the step tag"),
        ("review", "localize", "localize", "is the --input"),
    ],
)
def test_steps_take_the_folder_of_the_step_before_and_overwrite_no_other(
    work, tmp_path, capsys, name, source, output, message
):
    before = sorted(path.stat().st_mtime_ns for path in work.rglob("*") if path.is_file())
    target = tmp_path / "new" if output == "new" else work / output
    more = ["--masks", str(work / "maps")] if name == "localize" else []
    assert step(name, work / source, target, *more) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert message in error
    assert not (tmp_path / "new").exists()
    assert sorted(path.stat().st_mtime_ns for path in work.rglob("*") if path.is_file()) == before


def test_a_lowest_score_is_refused_where_there_are_no_scores(work, tmp_path, capsys):
    options = ["--masks", str(work / "maps"), "--least-score", "0.5"]
    assert step("localize", work / "filter", tmp_path / "out", *options) == 2
    assert "--least-score is for" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["id,item\n1,2\n", "id,item\n", "", "\n\n", "x"])
def test_wrong_tables_are_one_line(tmp_path, content):
    path = tmp_path / "a.csv"
    path.write_text(content)
    with pytest.raises(VividMedError, match="lacks the column"):
        read_decisions(path)
