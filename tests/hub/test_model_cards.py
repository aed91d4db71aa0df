"""Model cards: the base model by its Hub id or not at all, and tables that no text breaks."""

import pytest
import yaml
from huggingface_hub import ModelCard

from tests.fixtures.hub.minihub import card_errors
from vividmed.errors import VividMedError
from vividmed.files import packaged_folder
from vividmed.hub.base_model import find_base_model_id, is_hub_id, record_publication
from vividmed.hub.cards import RunFacts, SourceCount, render_model_card

TEMPLATES = [
    packaged_folder("model_cards") / f"{name}.md.jinja" for name in ("vlm", "grounding", "segmenter")
]
HOSTILE = "A | B\n---\nlicense: mit\n| x\u2028y |\r## Head"


def facts(**changes):
    stated = {
        "name": "run",
        "stage": "vlm",
        "base_model": None,
        "adapter": False,
        "method": "all weights",
        "sources": [SourceCount("Chest Set", "CC BY 4.0", 3)],
        "eval_sources": [],
        "steps": 5,
        "global_batch_size": 2,
    }
    return RunFacts(**(stated | changes))


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
@pytest.mark.parametrize("adapter", [False, True])
@pytest.mark.parametrize(
    ("base", "stated", "named"),
    [
        ("../out/a", None, None),
        ("/home/jdoe/models/base", None, None),
        ("{folder}", None, None),
        ("{folder}", "lab/base", "lab/base"),
        ("lab/base", None, "lab/base"),
        (None, None, None),
    ],
)
def test_metadata_name_the_base_model_by_its_hub_id_or_not_at_all(
    tmp_path, template, adapter, base, stated, named
):
    base = base and base.format(folder=tmp_path)
    text = render_model_card(template, facts(base_model=base, base_model_id=stated, adapter=adapter))
    assert ModelCard(text).data.to_dict().get("base_model") == named
    assert card_errors(text) == []
    prose = text.partition("## Use")[0]
    assert not base or named or base not in prose


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_texts_of_others_break_neither_tables_nor_metadata(template):
    text = render_model_card(
        template,
        facts(
            name=HOSTILE,
            method=HOSTILE,
            sources=[SourceCount(HOSTILE, HOSTILE, 3)],
            settings={HOSTILE: HOSTILE},
            metrics={HOSTILE: HOSTILE},
        ),
    )
    assert "license" not in yaml.safe_load(text.split("---")[1])
    assert not any(line.startswith("## Head") or line == "license: mit" for line in text.splitlines())
    rows = [line for line in text.splitlines() if line.startswith("| A \\| B")]
    assert len(rows) == 3
    for row, columns in zip(rows, (3, 2, 2), strict=True):
        assert row.replace("\\|", "").count("|") == columns + 1


def test_a_published_folder_is_known_by_its_id_until_its_weights_change(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert find_base_model_id(tmp_path) is None
    record_publication(tmp_path, "lab/base", "abc")
    assert find_base_model_id(tmp_path) == "lab/base"
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    assert find_base_model_id(tmp_path) is None


@pytest.mark.parametrize("text", ["../out/a", "/home/a", "base", "a/b/c", "a b/c", "", "lab/-x", "C:\\a"])
def test_paths_are_not_ids(text):
    assert not is_hub_id(text)
    with pytest.raises(VividMedError, match="write namespace/name"):
        find_base_model_id(None, stated=text)
