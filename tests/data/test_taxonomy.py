import json
from importlib.resources import files

import numpy as np
import pytest

from vividmed.data.taxonomy import Target, Taxonomy
from vividmed.data.taxonomy_files import TAXONOMY_VARIABLE
from vividmed.errors import VividMedError

ENTRIES = json.loads(files("vividmed.data").joinpath("taxonomy.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def taxonomy() -> Taxonomy:
    return Taxonomy.load()


def entry(name: str, **values: object) -> dict[str, object]:
    return {"name": name, "category": "anatomy", **values}


def test_packaged_taxonomy_covers_anatomy_and_anomalies(taxonomy):
    categories = [target.category for target in taxonomy]
    assert len(taxonomy) > 400
    assert categories.count("anatomy") > 300
    assert categories.count("anomaly") > 80


def test_every_class_of_totalsegmentator_is_a_target_of_its_own(taxonomy):
    keys = [target.ts_v2_key for target in taxonomy if target.ts_v2_key]
    assert len(keys) == len(set(keys)) == 117


def test_every_term_leads_back_to_its_target(taxonomy):
    for target in taxonomy:
        for term in target.terms:
            assert taxonomy[term] is target
            assert taxonomy[f"  {term.upper()} "] is target
            assert term in taxonomy


def test_no_term_can_break_a_comma_separated_list_of_answers(taxonomy):
    assert not [term for target in taxonomy for term in target.terms if set(term) & set(",:.<>")]


def test_unknown_target_is_refused_with_the_closest_names(taxonomy):
    with pytest.raises(
        VividMedError, match="'left kidny' is not in the taxonomy; did you mean 'left kidney'"
    ):
        taxonomy["left kidny"]
    with pytest.raises(VividMedError, match=r"'xyzzy' .*see vividmed/data/taxonomy.json"):
        taxonomy["xyzzy"]
    assert "xyzzy" not in taxonomy


def test_ancestors_and_descendants_are_transitive(taxonomy):
    assert taxonomy.ancestors("left lung upper lobe") == {"left lung", "lung upper lobe", "lung"}
    assert {"left lung", "left lung upper lobe"} <= taxonomy.descendants("lungs")
    assert "lung" not in taxonomy.descendants("lung")


def test_what_a_present_target_implies_is_not_absent(taxonomy):
    searched = ["tumor", "lung cancer", "pneumothorax", "lung lesion", "hydrothorax"]
    assert taxonomy.absent(["pulmonary carcinoma"], searched) == ["pneumothorax", "pleural effusion"]


def test_parts_of_an_absent_target_stay_absent(taxonomy):
    assert taxonomy.absent([], ["kidney", "left kidney"]) == ["kidney", "left kidney"]


def test_synonyms_are_drawn_evenly_and_only_from_the_generator(taxonomy):
    terms = taxonomy["left lung upper lobe"].terms
    drawn = [taxonomy.sample_term(terms[0], np.random.default_rng(i)) for i in range(400)]
    assert set(drawn) == set(terms)
    assert min(map(drawn.count, terms)) > 400 / len(terms) / 2
    assert drawn == [taxonomy.sample_term(terms[-1], np.random.default_rng(i)) for i in range(400)]


def test_mirroring_swaps_sides_of_the_body_and_is_its_own_inverse(taxonomy):
    assert taxonomy.mirror("left kidney") == "right kidney"
    assert taxonomy.mirror("right twelfth rib") == "left rib 12"
    assert taxonomy.mirror("head of left femur") == "head of right femur"
    assert taxonomy.mirror("liver") == "liver"
    for target in taxonomy:
        if (mirrored := taxonomy.mirror(target.name)) is not None:
            assert taxonomy.mirror(mirrored) == target.name


def test_structures_recognised_by_shape_keep_their_names_in_a_mirrored_image(taxonomy):
    for name in ("left ventricle", "right atrium", "left coronary artery", "right lobe of liver"):
        assert taxonomy.mirror(name) == name


def test_a_structure_of_only_one_side_has_no_mirrored_name(taxonomy):
    assert taxonomy.mirror("right middle lobe") is None


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([entry("liver"), entry("Liver")], "stands for 'liver' and 'Liver'"),
        ([entry("liver"), entry("spleen", synonyms=["LIVER"])], "stands for 'liver' and 'spleen'"),
        ([entry("liver", synonyms=["Liver"])], "'liver' lists a term twice"),
        ([entry("a", parents=["b"]), entry("b", parents=["a"])], "parents form a circle: a -> b -> a"),
        ([entry("a", parents=["a"])], "parents form a circle: a -> a"),
        ([entry("a", parents=["b"])], "'a' has the unknown parent 'b'"),
        ([entry("left kidney")], "'left kidney' lacks its counterpart 'right kidney'"),
        ([entry("left kidney"), {"name": "right kidney", "category": "anomaly"}], "differ in category"),
        ([entry("liver", laterality="place")], "'liver' has laterality 'place'"),
        ([entry("liver", laterality="up")], "laterality 'up'; use place, form, unpaired"),
        ([{"name": "liver", "category": "organ"}], "category 'organ'; use anatomy or anomaly"),
        ([{"name": "liver"}], "entry 'liver' lacks the field 'category'"),
        ([entry("liver", parent="a")], "unknown field 'parent'"),
        ([entry("liver", synonyms="hepar")], "entry 'liver': field 'synonyms' is 'hepar'"),
        ([entry("liver", synonyms=[1])], "field 'synonyms' is"),
        ([entry("liver", groundable="yes")], "field 'groundable' is 'yes'"),
        ([{"name": 3, "category": "anatomy"}], "field 'name' is 3"),
        ([{"name": "liver", "category": ["anatomy"]}], "field 'category' is"),
        (["liver"], "entry 0 is 'liver'"),
    ],
)
def test_faulty_taxonomy_is_refused_with_the_entry_named(entries, message):
    with pytest.raises(VividMedError, match=message):
        Taxonomy.from_entries(entries)


def test_laterality_has_to_be_given_where_targets_are_made_in_code():
    with pytest.raises(VividMedError, match="'left ventricle' has laterality None"):
        Taxonomy([Target(name="left ventricle", category="anatomy")])


def test_a_file_of_ones_own_adds_targets(tmp_path, taxonomy, monkeypatch):
    path = tmp_path / "own.json"
    own = [
        entry("left flipper"),
        entry("right flipper"),
        entry("flipper bone", parents=["left flipper", "bone"]),
    ]
    path.write_text(json.dumps(own))
    extended = Taxonomy.with_files(ENTRIES, path)
    assert len(extended) == len(taxonomy) + 3
    assert extended.mirror("left flipper") == "right flipper"
    assert "bone" in extended.ancestors("flipper bone")
    monkeypatch.setenv(TAXONOMY_VARIABLE, str(path))
    assert "flipper bone" in Taxonomy.load()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        (b"[", "cannot be read"),
        (b"\xff", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
        (b"{}", "contains a dict"),
        (b'[{"name": "liver", "category": "anomaly"}]', "'liver' is known with category 'anatomy'"),
        (b'[{"name": "flipper", "category": "anatomy", "synonyms": ["liver"]}]', "'liver' stands for"),
        (b'[{"name": "flipper", "category": "anatomy", "sides": 1}]', "'sides' is true or false"),
        (b'["flipper"]', "give an object with name and category"),
        (b'[{"name": "flipper", "category": "anatomy", "parents": ["whale"]}]', "unknown parent 'whale'"),
    ],
)
def test_a_faulty_file_of_ones_own_is_named_in_one_line(tmp_path, content, message):
    path = tmp_path / "own.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(VividMedError, match=rf"own\.json: .*{message}") as caught:
        Taxonomy.with_files(ENTRIES, path)
    assert "\n" not in str(caught.value)
