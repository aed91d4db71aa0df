"""Cases of a data set in nnU-Net's layout (version 1 or 2): images by channel, label maps, and optional reports."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vividmed.data.own.cells import key_text
from vividmed.data.own.listing import OwnListing
from vividmed.data.own.modalities import known_modality, modality_name
from vividmed.data.own.reports import CaseReport, Reports, mark_phrases, read_reports
from vividmed.data.own.target_names import TargetNames
from vividmed.data.raw.annotation import LabelMap
from vividmed.data.raw.case import Case, Failed, ImageFile, Listed, Skipped, Split
from vividmed.data.raw.documents import read_json
from vividmed.errors import VividMedError

_FILE = "dataset.json"
_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".png", ".tif", ".tiff", ".bmp")
_PICTURES = (".png", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg")
_NORMALISATIONS = frozenset(
    {"nonorm", "zscore", "rescale_to_0_1", "rescaleto01", "rgb_to_0_1", "r", "g", "b", "rgb"}
)
"""Names of channels that say how nnU-Net normalises them, not what they are."""

_IGNORE = "ignore"
_PREVIEWED = 3


@dataclass(frozen=True, kw_only=True)
class _Dataset:
    """What ``dataset.json`` says.

    Attributes:
        channels: modality of each channel, empty if it is not known.
        labels: label to its values; regions have several.
        ending: of all files.
        cases: case to its images and its label map.
        failed: case that cannot be used to the reason.
        unlabelled: cases without a label map.
        stated: number of cases for training that it states, if it does.
    """

    channels: tuple[str, ...]
    labels: Mapping[str, tuple[int, ...]]
    ending: str
    cases: Mapping[str, tuple[tuple[Path, ...], Path, Split | None]]
    failed: Mapping[str, str]
    unlabelled: tuple[str, ...]
    stated: Any


def read_nnunet_listing(
    folder: Path,
    *,
    renames: Mapping[str, str] | None = None,
    modality: str = "",
    reports: Path | None = None,
) -> tuple[OwnListing, OwnListing | None]:
    """Read a data set with ``dataset.json``, ``imagesTr``, ``labelsTr``, and optionally ``imagesTs`` and ``labelsTs``.

    Cases of ``labelsTs`` are the test split. Cases of ``imagesTs`` without a label are left out.

    Args:
        folder: folder of the data set.
        renames: label to target, where the label's own name is not in the taxonomy.
        modality: of the channels, separated by commas; by default as ``dataset.json`` names them.
        reports: table or folder of reports; see :func:`~vividmed.data.own.reports.read_reports`.

    Returns:
        Cases with masks, and cases with grounded reports if there are reports.

    Raises:
        VividMedError: ``dataset.json`` is missing or malformed, or there are no labels.
    """
    dataset = _read_dataset(folder, modality)
    names = TargetNames(renames)
    names.check_used(dataset.labels, str(folder / _FILE))
    texts = (
        Reports(by_case={}) if reports is None else read_reports(reports, [*dataset.cases, *dataset.failed])
    )
    labels, ignored, partial = _targets(dataset, names)
    if not labels:
        raise VividMedError(f"{folder / _FILE}: names no label besides the background; add the labels")
    cases: list[Listed] = []
    grounded: list[Listed] = []
    for key, (images, label, split) in dataset.cases.items():
        case = _case(key, images, label, split, dataset, texts.by_case.get(key, CaseReport()))
        if len(images) != len(dataset.channels):
            reason = f"has images of {len(images)} channels, but {_FILE} names {len(dataset.channels)}; name all channels there"
            cases.append(Failed(key, reason))
            continue
        annotation = LabelMap(
            label,
            labels,
            ignored=ignored,
            partial=partial,
            covers_image=True,
            listed_in=str(folder / _FILE),
        )
        case = replace(case, annotations=(annotation,), incomplete=tuple(sorted(partial)))
        if texts.has_patients and not texts.by_case.get(key, CaseReport()).patient:
            cases.append(
                Failed(key, "the table of reports names no patient for it; patients decide on splits")
            )
            continue
        cases.append(case)
        grounded.append(_with_report(case, texts.by_case.get(key), labels))
    cases += [Failed(key, reason) for key, reason in dataset.failed.items()]
    cases += [Skipped(key, "it has no label map") for key in dataset.unlabelled]
    listing = OwnListing(
        row_kind="localization",
        origin=folder.absolute(),
        cases=tuple(cases),
        modalities=tuple(dict.fromkeys(filter(None, dataset.channels))),
        has_splits=any(isinstance(case, Case) and case.split for case in cases),
        refused=texts.refused,
        notes=tuple(_notes(dataset)),
        overview=tuple(_overview(folder, dataset, labels, texts)),
        preview=tuple(_preview(cases)),
        has_patients=texts.has_patients,
    )
    if reports is None:
        return listing, None
    return listing, replace(
        listing,
        row_kind="grounded_report",
        cases=tuple(grounded),
        refused=(),
        preview=tuple(_report_preview(grounded)),
    )


def _read_dataset(folder: Path, modality: str) -> _Dataset:
    path = folder / _FILE
    if not folder.is_dir():
        raise VividMedError(f"{folder}: no such folder; give the folder that contains {_FILE}")
    if not path.is_file() and (inner := sorted(each.parent.name for each in folder.glob(f"*/{_FILE}"))):
        raise VividMedError(
            f"{folder}: contains no {_FILE}, but {', '.join(inner[:5])} do; give one of these folders"
        )
    content = read_json(path)
    if not isinstance(content, dict):
        raise VividMedError(f"{path}: is not an object; give the {_FILE} of nnU-Net")
    channels = content.get("channel_names", content.get("modality"))
    labels = content.get("labels")
    if not isinstance(labels, dict) or not labels:
        raise VividMedError(
            f"{path}: field 'labels' is missing or empty, or not an object; name the labels and their values"
        )
    if not isinstance(channels, dict) or not channels:
        raise VividMedError(
            f"{path}: field 'channel_names' (or 'modality') is missing or empty, or not an object; name the channels"
        )
    try:
        ordered = [key_text(channels[key]) for key in sorted(channels, key=int)]
        values = _label_values(labels)
    except (TypeError, ValueError) as error:
        raise VividMedError(
            f"{path}: fields 'channel_names' and 'labels' need whole numbers ({error})"
        ) from error
    named = key_text(content.get("file_ending")).lstrip(".")
    ending = f".{named}" if named else _found_ending(folder)
    cases, failed, unlabelled = _files(folder, content, ending, len(ordered))
    if not cases and failed:
        raise VividMedError(
            f"{folder}: no case can be used; the first one: {next(iter(failed))}: {next(iter(failed.values()))}"
        )
    if not cases:
        raise VividMedError(
            f"{folder}: labelsTr contains no file that ends in {ending}; check that the data set is complete"
        )
    return _Dataset(
        channels=_modalities(ordered, modality, path, one_file=ending in _PICTURES),
        labels=values,
        ending=ending,
        cases=cases,
        failed=failed,
        unlabelled=tuple(unlabelled),
        stated=content.get("numTraining"),
    )


def _label_values(labels: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Label to values: version 1 maps values to names, version 2 names to a value or, for regions, to several."""
    if all(isinstance(value, str) and key.strip().lstrip("-").isdigit() for key, value in labels.items()):
        found: dict[str, tuple[int, ...]] = {}
        for key, name in labels.items():
            found[name] = (*found.get(name, ()), int(key))
        return found
    return {
        name: tuple(int(v) for v in value) if isinstance(value, list | tuple) else (int(value),)
        for name, value in labels.items()
    }


def _modalities(channels: list[str], given: str, path: Path, *, one_file: bool) -> tuple[str, ...]:
    named = [modality_name(part) for part in given.split(",")] if given else []
    if one_file:
        known = [known_modality(channel) or "" for channel in channels]
        return (named[0] if named else known[0],)
    if named and len(named) != len(channels):
        raise VividMedError(
            f"--modality {given!r}: names {len(named)} channels, but {path} has {len(channels)} ({', '.join(channels)}); "
            "name all of them, separated by commas"
        )
    found = named or [
        "" if channel.lower() in _NORMALISATIONS or channel.isdigit() else modality_name(channel)
        for channel in channels
    ]
    if len(set(found)) < len(found):
        raise VividMedError(
            f"{path}: the channels {', '.join(channels)} need different names; name their modalities by --modality, "
            "separated by commas"
        )
    return tuple(found)


def _found_ending(folder: Path) -> str:
    names = [path.name for path in (folder / "labelsTr").glob("*")] if (folder / "labelsTr").is_dir() else []
    return next((ending for ending in _ENDINGS if any(name.endswith(ending) for name in names)), _ENDINGS[0])


def _files(
    folder: Path, content: Mapping[str, Any], ending: str, channels: int
) -> tuple[dict[str, tuple[tuple[Path, ...], Path, Split | None]], dict[str, str], list[str]]:
    """Cases, the reasons of those that cannot be used, and cases without a label map."""
    cases: dict[str, tuple[tuple[Path, ...], Path, Split | None]] = {}
    failed: dict[str, str] = {}
    stated = content.get("dataset")
    if isinstance(stated, dict) and stated:
        for key, entry in stated.items():
            files = entry if isinstance(entry, dict) else {}
            images, label = files.get("images"), files.get("label")
            images = [images] if isinstance(images, str) else images
            if not isinstance(label, str) or not isinstance(images, list) or not all(map(_is_text, images)):
                failed[key] = (
                    f"its entry in 'dataset' of {_FILE} needs a list 'images' of file names and a 'label'"
                )
                continue
            cases[key] = tuple(_inside(folder, image) for image in images), _inside(folder, label), None
        return cases, failed, []
    for part, split in (("Tr", None), ("Ts", "test")):
        for label in sorted((folder / f"labels{part}").glob(f"*{ending}")):
            if label.name.startswith("."):
                continue
            key = label.name.removesuffix(ending)
            if key in cases:
                failed[key] = (
                    "is in labelsTr and in labelsTs; it can only be in one, so remove or rename the other"
                )
                continue
            cases[key] = (tuple(_images(folder / f"images{part}", key, ending, channels)), label, split)  # type: ignore[assignment]
    unlabelled = {
        _case_of_image(path, ending)
        for part in ("Tr", "Ts")
        for path in (folder / f"images{part}").glob(f"*{ending}")
        if not path.name.startswith(".")
    }
    cases = {key: case for key, case in cases.items() if key not in failed}
    return cases, failed, sorted(unlabelled - cases.keys() - failed.keys())


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _inside(folder: Path, name: str) -> Path:
    path = Path(name)
    return path if path.is_absolute() else folder / path


def _images(folder: Path, key: str, ending: str, channels: int) -> Iterator[Path]:
    """Files of the channels; or one file with all of them, as the Medical Segmentation Decathlon has it."""
    whole = folder / f"{key}{ending}"
    if ending in _PICTURES:
        yield whole if whole.is_file() else folder / f"{key}_0000{ending}"
        return
    for channel in range(channels):
        single = folder / f"{key}_{channel:04d}{ending}"
        yield whole if whole.is_file() and not single.is_file() else single
    if (further := folder / f"{key}_{channels:04d}{ending}").is_file():
        yield further


def _case_of_image(path: Path, ending: str) -> str:
    name = path.name.removesuffix(ending)
    return name[:-5] if name[-5:-4] == "_" and name[-4:].isdigit() else name


def _targets(
    dataset: _Dataset, names: TargetNames
) -> tuple[dict[str, tuple[int, ...]], tuple[int, ...], frozenset[str]]:
    """Target to its values, values that are not used, and targets that may extend beyond what is labelled."""
    labels: dict[str, tuple[int, ...]] = {}
    for name, values in dataset.labels.items():
        target = None if name.lower() == _IGNORE else names.find(name)
        kept = tuple(value for value in values if value > 0)
        if target is not None and kept:
            labels[target] = tuple(sorted({*labels.get(target, ()), *kept}))
    used = {value for values in labels.values() for value in values}
    ignored = {value for values in dataset.labels.values() for value in values if value > 0} - used
    # Voxels to be ignored may belong to anything.
    has_ignore = any(name.lower() == _IGNORE for name in dataset.labels)
    return labels, tuple(sorted(ignored)), frozenset(labels) if has_ignore else frozenset()


def _case(
    key: str,
    images: tuple[Path, ...],
    label: Path,
    split: Split | None,
    dataset: _Dataset,
    report: CaseReport,
) -> Case:
    several = len(images) > 1 and len(set(images)) == 1
    return Case(
        id=key,
        patient=report.patient or key,
        split=split or report.split,
        images=tuple(
            ImageFile(path=path, modality=modality, channel=number if several else None)
            for number, (path, modality) in enumerate(zip(images, dataset.channels, strict=False))
        ),
    )


def _with_report(case: Case, report: CaseReport | None, targets: Iterable[str]) -> Listed:
    if report is None or not report.text:
        return Skipped(case.id, "it has no report")
    marked, phrases = mark_phrases(report.text, targets)
    return replace(case, images=case.images[:1], report=marked, phrases=phrases)


def _overview(
    folder: Path, dataset: _Dataset, labels: Mapping[str, tuple[int, ...]], texts: Reports
) -> list[str]:
    held_out = sum(split is not None for _, _, split in dataset.cases.values())
    lines = [
        f"{folder}: {len(dataset.cases)} cases with labels ({held_out} of them in labelsTs), "
        f"{len(dataset.unlabelled)} without",
        f"  channels   {', '.join(name or 'not named' for name in dataset.channels)}",
    ]
    for label, values in dataset.labels.items():
        target = next((t for t, v in labels.items() if set(values) <= set(v) and values != (0,)), None)
        lines.append(f"  label      {label!r} ({', '.join(map(str, values))}): {target or 'not used'}")
    if texts.by_case:
        lines.append(f"  reports    of {sum(bool(r.text) for r in texts.by_case.values())} cases")
    return lines


def _notes(dataset: _Dataset) -> Iterator[str]:
    found = sum(split is None for _, _, split in dataset.cases.values())
    if isinstance(dataset.stated, int) and dataset.stated != found:
        yield f"{_FILE} states {dataset.stated} cases for training, but {found} have labels"


def _preview(cases: Iterable[Listed]) -> Iterator[str]:
    for case in [case for case in cases if isinstance(case, Case)][:_PREVIEWED]:
        yield f"{case.id}: {', '.join(image.path.name for image in case.images)}"


def _report_preview(cases: Iterable[Listed]) -> Iterator[str]:
    for case in [case for case in cases if isinstance(case, Case)][:_PREVIEWED]:
        yield f"{case.id}: {' '.join((case.report or '').split())[:200]}"
