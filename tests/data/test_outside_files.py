import datasets
import pytest
from huggingface_hub import constants

from vividmed.data import loading
from vividmed.data.outside_files import refuse_outside_files
from vividmed.errors import VividMedError

FEATURES = datasets.Features({"images": [datasets.Image()], "volumes": [datasets.Nifti()]})


def rows(*paths: str, column: str = "images") -> datasets.Dataset:
    other = "volumes" if column == "images" else "images"
    table = {
        column: [[{"bytes": b"content", "path": "a.png"}], [{"bytes": None, "path": path} for path in paths]],
        other: [[], []],
    }
    raw = {name: [{"bytes": datasets.Value("binary"), "path": datasets.Value("string")}] for name in table}
    return datasets.Dataset.from_dict(table, features=datasets.Features(raw)).cast(FEATURES)


@pytest.mark.parametrize("column", ["images", "volumes"])
@pytest.mark.parametrize("path", ["/etc/hostname.png", "../../private.png", "scan.png", "~/x.png"])
def test_rows_of_a_repository_may_not_name_files_of_this_machine(path, column, monkeypatch):
    broken = rows(path, column=column)
    with pytest.raises(
        VividMedError, match=rf"org/set: row 1 names an image outside the data set \({column}"
    ):
        refuse_outside_files(datasets.DatasetDict({"train": broken}), "org/set")
    monkeypatch.setattr(loading, "load_dataset", lambda *_, **__: broken)
    with pytest.raises(VividMedError, match="row 1 names an image outside"):
        loading.load_prepared("org/set", what="--dataset_name org/set")


def test_content_downloaded_files_and_ones_own_data_are_accepted(tmp_path):
    refuse_outside_files(rows(), "org/set")
    refuse_outside_files(
        rows(f"{constants.HF_HUB_CACHE}/datasets--org--set/a.png", "hf://datasets/org/set/b.png"), "org/set"
    )
    refuse_outside_files(rows("/etc/hostname.png"), str(tmp_path))
