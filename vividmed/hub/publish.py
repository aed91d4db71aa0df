"""Publish a prepared data set or a trained model: terms first, then privacy, then the upload.

Nothing is visible to others unless asked for, and what the terms of the data forbid is refused however it is asked.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from huggingface_hub import RepoCard

from vividmed.data.taxonomy_files import TAXONOMY_FILE
from vividmed.data.terms import (
    PROVENANCE_FILE,
    TERMS_FILE,
    VISIBILITIES,
    DatasetTerms,
    RowSource,
    Terms,
    Visibility,
    read_all_terms,
    read_provenance,
    terms_of_rows,
    widest_visibility,
    write_terms,
)
from vividmed.errors import VividMedError
from vividmed.hub.base_model import find_base_model_id, is_hub_id, record_publication
from vividmed.hub.card_fields import missing_fields
from vividmed.hub.dataset_cards import REDISTRIBUTION_NOTICE
from vividmed.hub.privacy import check_files
from vividmed.hub.repository import HubRepository, RepoType
from vividmed.hub.staging import StagedFiles, list_files, stage_files

CARD = "README.md"
ADAPTER_CONFIG = "adapter_config.json"

# Lists of what may leave, so that logs, failure tables, samples and optimizer states stay.
_LICENCES = ("LICENSE", "LICENSE.md", "LICENSE.txt")
_DATASET_FILES = (CARD, TERMS_FILE, TAXONOMY_FILE, *_LICENCES)
_DATASET_SUFFIXES = (".parquet", ".png")
_DATASET_REPLACED = ("*.parquet", "*.png")
_MODEL_FILES = (
    CARD,
    PROVENANCE_FILE,
    TAXONOMY_FILE,
    *_LICENCES,
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    # Settings and figures of the run.
    "config.yaml",
    "baseline.json",
    ADAPTER_CONFIG,
    "model_settings.json",
    # Forms and thresholds next to an adapter that grounds.
    "grounding.json",
    "*processor_config.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "*.jinja",
    "*.model",
    "loss_curve.png",
)
_MODEL_REPLACED = ("*.safetensors", "*.safetensors.index.json")


@dataclass(frozen=True)
class Published:
    """A repository as it is on the Hub after an upload.

    Attributes:
        repo_id: ``namespace/name``.
        repo_type: ``dataset`` or ``model``.
        revision: hash of the commit; pass it as ``revision`` when loading, so that later pushes change nothing.
        visibility: ``private``, ``gated`` (everyone sees it, a person approves each reader) or ``public``.
        loading_line: Python expression that loads exactly this revision.
        missing: what the card of a model does not say, see :mod:`vividmed.hub.card_fields`.
    """

    repo_id: str
    repo_type: RepoType
    revision: str
    visibility: Visibility
    loading_line: str
    missing: tuple[str, ...] = ()


def publish_dataset(
    folder: str | Path,
    repo_id: str,
    *,
    terms: Terms | None = None,
    public: bool = False,
    gated: bool = False,
    accept: Collection[str] = (),
) -> Published:
    """Upload a prepared data set: Parquet shards, card, figures and terms.

    Other files of the folder stay. Call it again after an upload that was cut off to send the rest. Shards and figures
    of an earlier upload that the folder no longer has are deleted from the repository.

    The audience is limited by the terms stated and by those of the sources that the rows name. A source whose terms
    are unknown, or whose rows give another licence than its terms, keeps the data private.

    Args:
        folder: folder with ``README.md`` and Parquet files.
        repo_id: ``namespace/name``; created, private, if it does not exist.
        terms: terms of the data: an adapter or :class:`~vividmed.data.terms.DatasetTerms`. They are read from
            ``terms.json`` by default, which is written if it is missing.
        public: let everyone read the repository, once all files are there.
        gated: let everyone see it, but approve each reader yourself; takes precedence over ``public``.
        accept: texts that the privacy scan found and a person judged harmless.

    Returns:
        The repository and the commit.

    Raises:
        VividMedError: the terms forbid that audience, the repository is already visible to more people, the folder is
            incomplete, contains links or identifying text, or the Hub refuses or cannot be reached.
    """
    folder = Path(folder)
    visibility = _visibility(public=public, gated=gated)
    names = list_files(folder, _may_leave_dataset, recursive=True)
    shards = [name for name in names if name.endswith(".parquet")]
    if not shards:
        raise VividMedError(f"{folder}: contains no Parquet file; prepare the data set first")
    stated = _stated_terms(folder, terms, has_file=TERMS_FILE in names)
    _check_audience(f"the data set {folder}", stated, widest_visibility(stated, "data"), visibility)
    card = _card(folder, visibility)
    if widest_visibility(stated, "data") != "public" and REDISTRIBUTION_NOTICE not in card:
        limits = "; ".join(str(each) for each in stated)
        raise VividMedError(
            f"{folder / CARD}: does not say {REDISTRIBUTION_NOTICE!r} although the terms do ({limits}); "
            "write it with vividmed.hub.dataset_cards"
        )
    with stage_files(folder, names) as staged:
        all_terms = _terms_of_shards(staged, shards, stated)
        _check_audience(f"the data set {folder}", all_terms, widest_visibility(all_terms, "data"), visibility)
        if TERMS_FILE not in names:
            write_terms(folder, stated)
            staged.replace(TERMS_FILE, (folder / TERMS_FILE).read_text(encoding="utf-8"))
        check_files(staged.folder, staged.names, accept=accept, label=str(folder))
        return _publish(
            HubRepository(repo_id, "dataset"),
            staged,
            _DATASET_REPLACED,
            all_terms,
            visibility,
            "load_dataset",
        )


def check_audience(terms: Terms, *, public: bool = False, gated: bool = False) -> Visibility:
    """Refuse to show a data set to more people than its terms allow; of use before it is prepared.

    Args:
        terms: terms of the data: an adapter or :class:`~vividmed.data.terms.DatasetTerms`.
        public: show it to everyone.
        gated: show it to readers whom a person approves; takes precedence over ``public``.

    Returns:
        The audience asked for.

    Raises:
        VividMedError: the terms, which the message names, forbid it.
    """
    checked = DatasetTerms.of(terms)
    visibility = _visibility(public=public, gated=gated)
    _check_audience(f"the data set {checked.name}", [checked], checked.data_visibility, visibility)
    return visibility


def publish_model(
    folder: str | Path,
    repo_id: str,
    *,
    base_model_id: str | None = None,
    public: bool = False,
    gated: bool = False,
    accept: Collection[str] = (),
) -> Published:
    """Upload a trained model or adapter: safetensors, configuration, processor, card and provenance.

    Args:
        folder: folder with ``README.md`` and safetensors files at its top level. ``provenance.json``
            (:func:`~vividmed.data.terms.write_provenance`) lists the terms of all training data; without it the model
            can only be private.
        repo_id: ``namespace/name``; created, private, if it does not exist.
        base_model_id: for an adapter: Hub id of its base model. By default the one that the card names, the one that
            the base model's folder was published under, or the one that the adapter was trained from.
        public: let everyone read the repository, once all files are there.
        gated: let everyone see it, but approve each reader yourself; takes precedence over ``public``. Nothing wider
            is possible for models trained on data that may not be passed on.
        accept: texts that the privacy scan found and a person judged harmless.

    Returns:
        The repository and the commit.

    Raises:
        VividMedError: as :func:`publish_dataset`; or the base model of an adapter is not known on the Hub.
    """
    folder = Path(folder)
    visibility = _visibility(public=public, gated=gated)
    names = list_files(folder, _may_leave_model, recursive=False)
    provenance = read_provenance(folder) if PROVENANCE_FILE in names or visibility != "private" else []
    _check_audience(f"the model {folder}", provenance, widest_visibility(provenance, "model"), visibility)
    if not any(name.endswith(".safetensors") for name in names):
        raise VividMedError(f"{folder}: contains no safetensors file; save the model with save_pretrained")
    _card(folder, visibility)
    missing = missing_fields((folder / CARD).read_text(encoding="utf-8"))
    with stage_files(folder, names) as staged:
        loader = _model_loader(staged, base_model_id, Path(folder))
        check_files(staged.folder, staged.names, accept=accept, label=str(folder))
        repository = HubRepository(repo_id, "model")
        published = _publish(repository, staged, _MODEL_REPLACED, provenance, visibility, loader)
    record_publication(folder, published.repo_id, published.revision)
    return replace(published, missing=tuple(missing))


def find_repo_type(folder: str | Path) -> RepoType:
    """Tell what a folder contains: a model or adapter, or a prepared data set.

    Raises:
        VividMedError: neither, or both.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise VividMedError(f"{folder}: no such folder; name a prepared data set or a saved model")
    is_model = any((folder / name).is_file() for name in ("config.json", ADAPTER_CONFIG)) or any(
        folder.glob("*.safetensors")
    )
    is_dataset = (
        (folder / TERMS_FILE).is_file() or any(folder.glob("*.parquet")) or any(folder.glob("*/*.parquet"))
    )
    if is_model == is_dataset:
        found = "both a model and Parquet files" if is_model else "neither a model nor Parquet files"
        raise VividMedError(
            f"{folder}: contains {found}; name the folder of one of them, or say which with `push model` or `push dataset`"
        )
    return "model" if is_model else "dataset"


def _may_leave_dataset(name: str) -> bool:
    return name in _DATASET_FILES or PurePosixPath(name).suffix in _DATASET_SUFFIXES


def _may_leave_model(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in _MODEL_FILES)


def _stated_terms(folder: Path, given: Terms | None, *, has_file: bool) -> list[DatasetTerms]:
    """Terms that the caller and the folder state; they must agree."""
    if given is None:
        return read_all_terms(folder)
    checked = DatasetTerms.of(given)
    if has_file and (stated := read_all_terms(folder)) != [checked]:
        found = "; ".join(str(each) for each in stated)
        raise VividMedError(
            f"{folder / TERMS_FILE}: differs from the terms given ({found}; given {checked}); prepare the data set again"
        )
    return [checked]


def _terms_of_shards(
    staged: StagedFiles, shards: Sequence[str], stated: Sequence[DatasetTerms]
) -> list[DatasetTerms]:
    """Terms of every source that the rows name, as the folder and the package state them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Imports all adapters.
    from vividmed.data.known_terms import known_terms

    sources: set[RowSource] = set()
    for name in shards:
        try:
            with pq.ParquetFile(staged.folder / name) as file:
                if not {"source", "licence"} <= set(file.schema_arrow.names):
                    sources.add(RowSource(None, None))
                    continue
                for batch in file.iter_batches(columns=["source", "licence"]):
                    pairs = zip(*(batch[column].to_pylist() for column in ("source", "licence")), strict=True)
                    sources |= {RowSource(*pair) for pair in pairs}
        except (OSError, pa.ArrowException) as error:
            raise VividMedError(
                f"{name}: cannot be read as Parquet ({' '.join(str(error).split())}); prepare it again"
            ) from error
    return terms_of_rows(sources, stated=stated, known=known_terms())


def _visibility(*, public: bool, gated: bool) -> Visibility:
    if gated:
        return "gated"
    return "public" if public else "private"


def _check_audience(
    what: str, training_data: Sequence[DatasetTerms], widest: Visibility, asked: Visibility
) -> None:
    """Refuse an audience wider than the terms allow, naming those terms."""
    if VISIBILITIES.index(asked) <= VISIBILITIES.index(widest):
        return
    remedy = "keep it private" if widest == "private" else "keep it private, or make it gated"
    limiting = "; ".join(str(terms) for terms in training_data if terms.redistribute != "yes")
    raise VividMedError(f"{what} may not be made {asked} under the terms of its data ({limiting}); {remedy}")


def _card(folder: Path, visibility: Visibility) -> str:
    """Text of the card; one that others will see names a licence."""
    path = folder / CARD
    # The loader takes the name of a missing file for a repository on the Hub.
    if not path.is_file():
        raise VividMedError(f"{path}: is missing; write the card first")
    try:
        card = RepoCard(path.read_text(encoding="utf-8"))
        data = card.data.to_dict()
    except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise VividMedError(
            f"{path}: the metadata block cannot be read ({' '.join(str(error).split())}); correct it"
        ) from error
    base_models = data.get("base_model") or []
    for base in base_models if isinstance(base_models, list) else [base_models]:
        if not isinstance(base, str) or not is_hub_id(base):
            raise VividMedError(
                f"{path}: 'base_model' is {base!r}, not the id of a model on the Hub; "
                "write namespace/name or remove the entry"
            )
    if visibility != "private" and not data.get("license"):
        raise VividMedError(f"{path}: the metadata block has no field 'license'; add it")
    return card.content


def _model_loader(staged: StagedFiles, base_model_id: str | None, folder: Path) -> str:
    """Expression before the name and revision that loads the model; an adapter gets the Hub id of its base model."""
    if ADAPTER_CONFIG in staged.names and "config.json" not in staged.names:
        base = _set_adapter_base(staged, base_model_id, folder)
        return f'load_adapter(VividMedForCausalLM.from_pretrained("{base}"), '
    config = _read_json(staged.folder / "config.json") if "config.json" in staged.names else {}
    classes = {"vividmed_segmenter": "Segmenter", "vividmed_instance_segmenter": "InstanceSegmenter"}
    return f"{classes.get(str(config.get('model_type')), 'VividMedForCausalLM')}.from_pretrained"


def _set_adapter_base(staged: StagedFiles, stated: str | None, folder: Path) -> str:
    config = _read_json(staged.folder / ADAPTER_CONFIG)
    trained_on = config.get("base_model_name_or_path")
    card = RepoCard((staged.folder / CARD).read_text(encoding="utf-8")).data.to_dict().get("base_model")
    named = card if isinstance(card, str) else card[0] if card else None
    base = find_base_model_id(None if trained_on is None else str(trained_on), stated=stated or named)
    # What looks like an id may be the name of a folder on the machine that trained the adapter.
    if base is None or (
        base == trained_on and not (stated or named) and not HubRepository(base, "model").exists()
    ):
        raise VividMedError(
            f"{folder}: is an adapter for {trained_on!r}, which is not a model on the Hub, so that nobody else can "
            "load it; publish that model and give its id (--base-model-id), or merge the adapter into it and publish "
            "the merged model"
        )
    if base != trained_on:
        staged.replace(
            ADAPTER_CONFIG, json.dumps(config | {"base_model_name_or_path": base}, indent=2) + "\n"
        )
    return base


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise VividMedError(f"{path.name}: cannot be read as JSON ({error}); save the model again") from error
    if not isinstance(content, dict):
        raise VividMedError(f"{path.name}: is not a JSON object; save the model again")
    return content


def _publish(
    repository: HubRepository,
    staged: StagedFiles,
    replaced: Sequence[str],
    terms: Sequence[DatasetTerms],
    visibility: Visibility,
    loader: str,
) -> Published:
    repository.create()
    if visibility == "gated":
        repository.require_approval()
    now = repository.visibility()
    if VISIBILITIES.index(now) > VISIBILITIES.index(visibility):
        limits = "; ".join(str(entry) for entry in terms)
        raise VividMedError(
            f"{repository.repo_id} exists and is {now}, but this push is to be {visibility} ({limits}); "
            "choose another repository, or ask for the wider audience if the terms allow it"
        )
    staged.check_unchanged()
    revision = repository.upload(staged.folder, staged.names, replaced=replaced)
    staged.check_unchanged()
    if now == "private" and visibility != "private":
        repository.open()
    opening = "" if loader.endswith(", ") else "("
    line = f'{loader}{opening}"{repository.repo_id}", revision="{revision}")'
    return Published(repository.repo_id, repository.repo_type, revision, repository.visibility(), line)
