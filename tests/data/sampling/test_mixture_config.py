from pathlib import Path

import pytest

from vividmed.data.adapters import get_adapter
from vividmed.data.sampling.mixture_config import MixtureConfig
from vividmed.errors import VividMedError

MIXTURES = Path(__file__).resolve().parents[3] / "stages" / "configs" / "mixtures"


def write(folder, text):
    path = folder / "mixture.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("datasets: []", "has no data sets"),
        ("seed: 1", "'datasets' is missing"),
        ("- a", "contains no settings"),
        ("a: [", "is not valid YAML"),
        ("weights: 1\ndatasets: []", "'weights' is not understood"),
        ("datasets: [{kind: localization}]", r"datasets\[0\] has no name"),
        ("datasets: [{name: a}]", "a: 'kind' is missing"),
        ("datasets: [{name: a, kind: report}]", "a: kind is 'report'; use localization"),
        ("datasets: [{name: a, kind: localization, weigth: 1}]", "a: 'weigth' is not understood"),
        ("datasets: [{name: a, kind: localization, weight: 0}]", "a: weight is 0"),
        ("datasets: [{name: a, kind: localization, weight: .nan}]", "a: weight is nan"),
        ("datasets: [{name: a, kind: localization, rows_per_case: 0}]", "a: rows_per_case is 0"),
        ("datasets: [{name: a, kind: localization, negative_fraction: 1}]", "a: negative_fraction is 1"),
        ("datasets: [{name: a, kind: localization}, {name: a, kind: localization}]", "lists a twice"),
        ("datasets: [{name: a, kind: localization, conversation: {plane: 1}}]", "'plane' is not a setting"),
        ("conversation: {reports: {}}\ndatasets: []", "'reports' is not a kind of row"),
        ("conversation: {localization: {modality: 2}}\ndatasets: []", "modality is 2; give a probability"),
        ("seed: -1\ndatasets: [{name: a, kind: localization}]", "seed is -1"),
        ("seed: one\ndatasets: [{name: a, kind: localization}]", "seed is 'one'"),
        ("root: 5\ndatasets: [{name: a, kind: localization}]", "root is 5"),
        ("datasets: {name: a}", "'datasets' is missing"),
        ("datasets: [a]", r"datasets\[0\] has no name"),
        ("datasets: [{name: 3, kind: localization}]", r"datasets\[0\] has no name"),
        ("datasets: [{name: a, kind: [localization]}]", r"a: kind is \['localization'\]"),
        ("datasets: [{name: a, kind: {x: 1}}]", "a: kind is"),
        ("datasets: [{name: a, kind: localization, path: [b]}]", "a: path is"),
        ('datasets: [{name: a, kind: localization, path: "a\\0b"}]', "a: path is"),
        ("datasets: [{name: a, kind: localization, config: 1}]", "a: config is 1"),
        ("datasets: [{name: a, kind: localization, split: null}]", "a: split is None"),
        ("datasets: [{name: a, kind: localization, revision: 2.5}]", "a: revision is 2.5"),
        ("datasets: [{name: a, kind: localization, weight: '1'}]", "a: weight is '1'"),
        (f"datasets: [{{name: a, kind: localization, weight: {10**400}}}]", "a: weight is 1000"),
        ("datasets: [{name: a, kind: localization, weight: true}]", "a: weight is True"),
        ("datasets: [{name: a, kind: localization, num_rows: 2.5}]", "a: num_rows is 2.5"),
        ("datasets: [{name: a, kind: localization, negative_fraction: [1]}]", "a: negative_fraction is"),
        ("datasets: [{name: a, kind: localization, conversation: [1]}]", "a: conversation is"),
        ("datasets: [{name: a, kind: localization, conversation: {1: 2}}]", "1 is not a setting"),
        ("datasets: [{name: a, kind: localization, 1: 2}]", "a: 1 is not understood"),
        ("conversation: [1]\ndatasets: []", "conversation is"),
        ("conversation: {localization: 3}\ndatasets: []", "conversation is"),
        ("mixture: 5", "mixture is 5"),
        ("mixture: mixture.yaml", "leads back to this file"),
        ("mixture: ../{folder}/./mixture.yaml", "leads back to this file"),
        ("seed: 2020-99-99", "is not valid YAML"),
        ("[" * 20_000, "nested too deeply"),
        ("a: !!python/object:os.system {}", "is not valid YAML"),
    ],
)
def test_faulty_file_is_refused_with_its_name_and_field(tmp_path, text, message):
    path = write(tmp_path, text.replace("{folder}", tmp_path.name))
    with pytest.raises(VividMedError, match=message) as caught:
        MixtureConfig.from_yaml(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_mixtures_that_name_each_other_are_refused(tmp_path):
    for name, other in (("a", "b"), ("b", "c"), ("c", "a")):
        (tmp_path / f"{name}.yaml").write_text(f"mixture: {other}.yaml")
    with pytest.raises(VividMedError, match=r"c\.yaml: names the mixture 'a\.yaml', which leads back"):
        MixtureConfig.from_yaml(tmp_path / "a.yaml")


@pytest.mark.parametrize("content", [b"seed: 1 # \xe9t\xe9", "datasets: []".encode("utf-16"), b"a: \x00"])
def test_file_of_another_encoding_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "mixture.yaml"
    path.write_bytes(content)
    with pytest.raises(VividMedError, match=r"mixture\.yaml: is not (UTF-8|valid YAML)") as caught:
        MixtureConfig.from_yaml(path)
    assert "\n" not in str(caught.value)


def test_a_setting_is_still_read_under_its_former_name(tmp_path):
    path = write(tmp_path, "datasets: [{name: a, kind: localization, conversation: {absent_kind: box}}]")
    assert MixtureConfig.from_yaml(path).entries[0].conversation.localization.absent_label_type == "box"


def test_settings_of_an_entry_add_to_those_of_the_file(tmp_path):
    path = write(
        tmp_path,
        "conversation: {localization: {grounding: 0.5, max_absent: 2}}\n"
        "datasets:\n"
        "  - {name: a, kind: localization, conversation: {grounding: 0.25}}\n"
        "  - {name: b, kind: vision_language}\n",
    )
    first, second = MixtureConfig.from_yaml(path).entries
    assert (first.conversation.localization.grounding, first.conversation.localization.max_absent) == (
        0.25,
        2,
    )
    assert second.conversation.vision_language.modality == 0.2


@pytest.mark.parametrize(
    ("name", "count"),
    [("align_sam", 42), ("align_isam", 1), ("vg", 33), ("vlm", 3), ("grg", 2), ("vg_vlm", 46)],
)
def test_published_mixtures_are_complete(name, count):
    mixture = MixtureConfig.from_yaml(MIXTURES / f"{name}.yaml", root="prepared")
    assert len(mixture.entries) == count
    for entry in mixture.entries:
        assert mixture.location(entry) == f"prepared/{entry.name}"


def test_localization_data_sets_of_published_mixtures_can_be_prepared():
    for path in MIXTURES.glob("*.yaml"):
        for entry in MixtureConfig.from_yaml(path).entries:
            if entry.row_kind == "localization":
                assert get_adapter(entry.name).row_kind == "localization"


def test_published_mixtures_keep_the_published_settings():
    vg = {entry.name: entry for entry in MixtureConfig.from_yaml(MIXTURES / "vg.yaml").entries}
    assert {entry.conversation.localization.grounding for entry in vg.values()} == {0.95}
    assert vg["vindr-cxr"].weight == 0.67
    assert vg["vindr-cxr"].conversation.localization.absent_label_type == "box"
    assert vg["brats2023-gli"].conversation.localization.open_anomalies == 0.9
    mimic, _, rocov2 = MixtureConfig.from_yaml(MIXTURES / "vlm.yaml").entries
    assert (mimic.negative_fraction, rocov2.weight) == (0.2, 0.3)
