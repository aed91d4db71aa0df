"""Publish a prepared data set or a trained model: terms first, then privacy, then the upload.

Nothing is visible to others unless asked for, and what the terms of the data forbid is refused however it is asked.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from huggingface_hub import RepoCard

from vividmed.data.terms import (
    PROVENANCE_FILE,
    TERMS_FILE,
    DatasetTerms,
    Terms,
    Visibility,
    read_provenance,
    read_terms,
    write_terms,
)
from vividmed.errors import VividMedError
from vividmed.hub.dataset_cards import REDISTRIBUTION_NOTICE
from vividmed.hub.privacy import check_files
from vividmed.hub.repository import HubRepository, RepoType

CARD = "README.md"
_AUDIENCE: tuple[Visibility, ...] = ("private", "gated", "public")

# Lists of what may leave, so that logs, failure tables, samples and optimizer states stay.
_DATASET_FILES = (CARD, TERMS_FILE, "LICENSE*", "*.parquet", "*.png")
_DATASET_REPLACED = ("*.parquet", "*.png")
_MODEL_FILES = (
    CARD,
    PROVENANCE_FILE,
    "LICENSE*",
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "adapter_config.json",
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
    """What is now on the Hub.

    Attributes:
        repo_id: ``namespace/name``.
        repo_type: ``dataset`` or ``model``.
        revision: hash of the commit; pass it as ``revision`` when loading, so that later pushes change nothing.
        visibility: ``private``, ``gated`` (seen by all, read by those whom a person lets in) or ``public``.
    """

    repo_id: str
    repo_type: RepoType
    revision: str
    visibility: Visibility


def publish_dataset(
    folder: str | Path,
    repo_id: str,
    *,
    terms: Terms,
    public: bool = False,
    gated: bool = False,
    accept: Collection[str] = (),
) -> Published:
    """Upload a prepared data set: Parquet shards, card, figures and terms.

    Other files of the folder stay. An upload that was cut off goes on where it ended when called again. Shards and
    figures of an earlier upload that the folder no longer has are deleted from the repository.

    Args:
        folder: with ``README.md`` and Parquet files; ``terms.json`` is written when it is missing.
        repo_id: ``namespace/name``; made, private, when it does not exist.
        terms: of the data: an adapter or :class:`~vividmed.data.terms.DatasetTerms`.
        public: let everyone read the repository, once all files are there.
        gated: let everyone see it, but read it only whom a person lets in; goes before ``public``.
        accept: texts that the privacy scan found and a person judged harmless.

    Returns:
        The repository and the commit.

    Raises:
        VividMedError: if the terms forbid that audience, the repository is visible already without ``public``, the
            folder is incomplete or holds identifying text, or the Hub refuses or cannot be reached.
    """
    folder = Path(folder)
    checked = DatasetTerms.of(terms)
    visibility = check_audience(terms, public=public, gated=gated)
    names = _files(folder, _DATASET_FILES, recursive=True)
    if not any(name.endswith(".parquet") for name in names):
        raise VividMedError(f"{folder} holds no Parquet file; prepare the data set first")
    card = _card(folder, visibility)
    if checked.data_visibility != "public" and REDISTRIBUTION_NOTICE not in card:
        raise VividMedError(
            f"{folder / CARD} does not say {REDISTRIBUTION_NOTICE!r} although the terms do ({checked}); "
            "write it with vividmed.hub.dataset_cards"
        )
    if TERMS_FILE not in names:
        write_terms(folder, checked)
        names = sorted([*names, TERMS_FILE])
    elif (stated := read_terms(folder)) != checked:
        raise VividMedError(
            f"{folder / TERMS_FILE} differs from the terms given ({stated}; given {checked}); prepare the data set again"
        )
    check_files(folder, names, accept=accept)
    return _publish(
        HubRepository(repo_id, "dataset"), folder, names, _DATASET_REPLACED, [checked], visibility
    )


def check_audience(terms: Terms, *, public: bool = False, gated: bool = False) -> Visibility:
    """Refuse to show a data set to more people than its terms allow; of use before it is prepared.

    Args:
        terms: of the data: an adapter or :class:`~vividmed.data.terms.DatasetTerms`.
        public: to everyone.
        gated: to those whom a person lets in; goes before ``public``.

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
    public: bool = False,
    gated: bool = False,
    accept: Collection[str] = (),
) -> Published:
    """Upload a trained model or adapter: safetensors, configuration, processor, card and provenance.

    Args:
        folder: with ``README.md`` and safetensors files at its top level. ``provenance.json``
            (:func:`~vividmed.data.terms.write_provenance`) lists the terms of all training data; without it the model
            can only be private.
        repo_id: ``namespace/name``; made, private, when it does not exist.
        public: let everyone read the repository, once all files are there.
        gated: let everyone see it, but read it only whom a person lets in; goes before ``public``. Nothing wider is
            possible for models trained on data that may not be passed on.
        accept: texts that the privacy scan found and a person judged harmless.

    Returns:
        The repository and the commit.

    Raises:
        VividMedError: as :func:`publish_dataset`.
    """
    folder = Path(folder)
    visibility = _visibility(public=public, gated=gated)
    names = _files(folder, _MODEL_FILES, recursive=False)
    provenance = read_provenance(folder) if PROVENANCE_FILE in names or visibility != "private" else []
    allowed: list[Visibility] = [terms.model_visibility for terms in provenance]
    widest = min(allowed, key=_AUDIENCE.index) if allowed else "private"
    _check_audience(f"the model {folder}", provenance, widest, visibility)
    if not any(name.endswith(".safetensors") for name in names):
        raise VividMedError(f"{folder} holds no safetensors file; save the model with save_pretrained")
    _card(folder, visibility)
    check_files(folder, names, accept=accept)
    return _publish(HubRepository(repo_id, "model"), folder, names, _MODEL_REPLACED, provenance, visibility)


def _visibility(*, public: bool, gated: bool) -> Visibility:
    if gated:
        return "gated"
    return "public" if public else "private"


def _check_audience(
    what: str, training_data: Sequence[DatasetTerms], widest: Visibility, asked: Visibility
) -> None:
    """Refuse an audience wider than the terms allow, naming those terms."""
    if _AUDIENCE.index(asked) <= _AUDIENCE.index(widest):
        return
    remedy = "keep it private" if widest == "private" else "keep it private, or make it gated"
    limiting = "; ".join(str(terms) for terms in training_data if terms.redistribute != "yes")
    raise VividMedError(f"{what} may not be made {asked} under the terms of its data ({limiting}); {remedy}")


def _files(folder: Path, patterns: Iterable[str], *, recursive: bool) -> list[str]:
    """Paths to send, relative to the folder; hidden files and folders hold unfinished work and stay."""
    if not folder.is_dir():
        raise VividMedError(f"{folder} is no folder; give the folder to publish")
    found = sorted(folder.rglob("*") if recursive else folder.iterdir())
    names = [path.relative_to(folder) for path in found if path.is_file()]
    return [
        name.as_posix()
        for name in names
        if not any(part.startswith(".") for part in name.parts)
        and any(fnmatchcase(name.as_posix(), pattern) for pattern in patterns)
    ]


def _card(folder: Path, visibility: Visibility) -> str:
    """Text of the card; one that others will see names a licence."""
    path = folder / CARD
    # The loader takes the name of a missing file for a repository on the Hub.
    if not path.is_file():
        raise VividMedError(f"{path} is missing; write the card first")
    try:
        card = RepoCard.load(path)
    except ValueError as error:
        raise VividMedError(f"{path}: the metadata block cannot be read ({error}); mend it") from error
    if visibility != "private" and not card.data.get("license"):
        raise VividMedError(f"{path}: the metadata block has no field 'license'; add it")
    return card.content


def _publish(
    repository: HubRepository,
    folder: Path,
    names: Sequence[str],
    replaced: Sequence[str],
    terms: Sequence[DatasetTerms],
    visibility: Visibility,
) -> Published:
    repository.create()
    if visibility == "gated":
        repository.require_approval()
    now = repository.visibility()
    if _AUDIENCE.index(now) > _AUDIENCE.index(visibility):
        limits = "; ".join(str(entry) for entry in terms)
        raise VividMedError(
            f"{repository.repo_id} exists and is {now}, but this push is to be {visibility} ({limits}); "
            "choose another repository, or ask for the wider audience if the terms allow it"
        )
    revision = repository.upload(folder, names, replaced=replaced)
    if now == "private" and visibility != "private":
        repository.open()
    return Published(repository.repo_id, repository.repo_type, revision, repository.visibility())
