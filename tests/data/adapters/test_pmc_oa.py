import json
from pathlib import Path

from tests.fixtures.miniatures import Prepared, picture, write_picture
from tests.fixtures.prepared_miniatures import miniature

CAPTIONS = {
    "PMC3055235_gyg110003f1_a.jpg": "  axial CT of the\nabdomen with a cyst",
    "PMC3055235_gyg110003f1_b.jpg": "Coronal reformation.",
    "PMC212319_Fig3_4.jpg": "A",
    "PMC999_Fig1_1.jpg": "Radiograph of the hand.",
    "PMC998_Fig1_1.jpg": "Radiograph of the foot.",
}


@miniature(
    "pmc-oa",
    truncated={"caption_T060_filtered_top4_sep_v0_subfigures/PMC999_Fig1_1.jpg": "PMC999_Fig1_1"},
    also_failing=("PMC998_Fig1_1",),
)
def prepared(origin: Path) -> None:
    folder = origin / "caption_T060_filtered_top4_sep_v0_subfigures"
    for seed, name in enumerate(CAPTIONS):
        write_picture(folder / name, picture(seed=seed))
    (folder / "PMC998_Fig1_1.jpg").unlink()
    lines = [json.dumps({"image": name, "caption": text}) for name, text in CAPTIONS.items()]
    (origin / "pmc_oa.jsonl").write_text("\n".join(lines) + "\n")


def test_captions_become_sentences(prepared: Prepared):
    captions = {key: row["messages"][1]["content"] for key, row in prepared.rows.items()}
    assert captions == {
        "PMC3055235_gyg110003f1_a": "Axial CT of the abdomen with a cyst.",
        "PMC3055235_gyg110003f1_b": "Coronal reformation.",
    }


def test_figures_of_an_article_stay_in_one_split(prepared: Prepared):
    assert {row["patient"] for row in prepared.rows.values()} == {"pmc-oa:PMC3055235"}
    assert len(set(prepared.split_of.values())) == 1


def test_the_modality_is_not_made_up(prepared: Prepared):
    assert {row["modality"] for row in prepared.rows.values()} == {None}


def test_short_captions_are_left_out(prepared: Prepared):
    assert list(prepared.result.left_out) == ["PMC212319_Fig3_4"]
