"""What holds for every adapter, tried on the miniatures of all of them."""

import shutil
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest

import tests.data.adapters
from tests.fixtures.prepared_miniatures import MINIATURES
from vividmed.data.adapters import adapter_names, get_adapter
from vividmed.data.batches.examples import read_images
from vividmed.data.image_grids import check_grids
from vividmed.data.preparation.case_rows import Processing
from vividmed.data.preparation.plan import list_cases
from vividmed.data.raw.case import printable

for module in iter_modules(tests.data.adapters.__path__):
    import_module(f"{tests.data.adapters.__name__}.{module.name}")

PROCESSING = Processing()
ODD_NAMES = (
    "odd",
    "a b [x] (1)*?",
    "..x..",
    "\u00fc \u80ba 'q'",
    "new\nline",
    "not utf-8 \udcff",
    "0" * 180,
    "-1",
    "1_000",
)


@pytest.mark.parametrize("name", sorted(MINIATURES))
def test_a_truncated_file_fails_its_case_by_name_and_the_others_are_prepared(
    name: str, tmp_path_factory: pytest.TempPathFactory
):
    miniature = MINIATURES[name]
    prepared = miniature.prepared(tmp_path_factory)
    broken = {case: Path(path).name for path, case in miniature.truncated.items()}
    assert set(prepared.result.failed) == {*broken, *miniature.also_failing}
    for case, file in broken.items():
        assert " ".join(file.split()) in prepared.result.failed[case]
        assert not any(key == case or key.startswith(f"{case}_") for key in prepared.rows)
    listing = list_cases(get_adapter(name), prepared.origin, PROCESSING)
    sound = [item.case for item in listing.cases if item.case.id not in prepared.result.failed]
    images = [
        case.images if get_adapter(name).row_kind == "localization" else case.images[:1] for case in sound
    ]
    assert len(prepared.rows) == sum(map(len, images)) > 0
    for row in prepared.rows.values():
        check_grids(row["grids"], read_images(row))


def _odd_copies(origin: Path) -> int:
    """Copy a file or folder of every pattern of the names in each folder under odd names."""
    count = 0
    for path in sorted(origin.rglob("*")):
        if path.suffix in (".csv", ".json", ".jsonl", ".txt") and path.parent in (origin, origin.parent):
            continue
        first = next(iter(sorted(path.parent.iterdir())))
        if path != first and path.suffix == first.suffix:
            continue
        for odd in ODD_NAMES:
            stem, dot, ending = path.name.partition(".")
            head = "".join(letter for letter in stem if not letter.isdigit())[:20]
            for name in (f"{odd}{dot}{ending}", f"{head}{odd}{dot}{ending}"):
                target = path.with_name(name)
                if target.exists():
                    continue
                if path.is_dir():
                    target.mkdir()
                else:
                    shutil.copyfile(path, target)
                count += 1
    return count


@pytest.mark.parametrize("name", sorted(MINIATURES))
def test_odd_file_names_stop_no_other_case(
    name: str, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
):
    adapter = get_adapter(name)
    origin = tmp_path / "origin"
    shutil.copytree(MINIATURES[name].prepared(tmp_path_factory).origin, origin)
    before = list_cases(adapter, origin, PROCESSING)
    assert _odd_copies(origin)
    after = list_cases(adapter, origin, PROCESSING)
    for key in {item.case.id for item in before.cases} - {item.case.id for item in after.cases}:
        # Odd files in the folder of a case may be its own: they fail this case, by their names.
        reason = after.failed[key]
        assert "have this id" in reason or any(printable(odd) in reason for odd in ODD_NAMES)
    for key, reason in (after.failed | after.left_out).items():
        assert f"{key}{reason}".isprintable()
        f"{key}{reason}".encode()


@pytest.mark.parametrize("name", sorted(MINIATURES))
def test_every_owner_of_shared_patients_is_known_to_share_them(
    name: str, tmp_path_factory: pytest.TempPathFactory
):
    adapter = get_adapter(name)
    listing = list_cases(adapter, MINIATURES[name].prepared(tmp_path_factory).origin, PROCESSING)
    owners = {adapter.patient_key(item.case).partition(":")[0] for item in listing.cases}
    assert not adapter.has_own_patients([item.case for item in listing.cases]) or owners == {name}
    for owner in owners & set(adapter_names()) - {name}:
        assert not get_adapter(owner).has_own_patients([])
