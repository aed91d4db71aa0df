"""What a model may be shared under: the terms of the data it was trained on and of the models it started from."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from transformers.utils import logging

from vividmed.data.known_terms import sample_terms
from vividmed.data.sampling.mixture_config import MixtureConfig
from vividmed.data.terms import (
    PROVENANCE_FILE,
    TERMS_FILE,
    DatasetTerms,
    read_provenance,
    read_terms,
    write_provenance,
)
from vividmed.training.arguments import DataArguments

logger = logging.get_logger(__name__)


def write_run_provenance(folder: Path, data_args: DataArguments, models: Sequence[str | None]) -> None:
    """Write ``provenance.json`` of a run, if the terms of everything that went into it are stated.

    Where something states no terms, an earlier file is removed and a warning names it: a model without provenance can
    only be published private (docs/publishing.md).

    Args:
        folder: of the run.
        data_args: which data it was trained on.
        models: folders or Hub ids of the models it started from; None for random weights.

    Raises:
        VividMedError: a file of terms is damaged.
    """
    known: list[DatasetTerms] = []
    unknown: list[str] = []
    for name, terms in (*_data_terms(data_args), *_model_terms(models)):
        known += terms
        if not terms:
            unknown.append(name)
    if not unknown:
        write_provenance(folder, known)
        return
    (folder / PROVENANCE_FILE).unlink(missing_ok=True)
    logger.warning(
        f"{', '.join(unknown)}: no {TERMS_FILE} or {PROVENANCE_FILE} states the terms, so that this model can be "
        "published private only"
    )


def _data_terms(args: DataArguments) -> Iterator[tuple[str, list[DatasetTerms]]]:
    """Each data set that was trained on, and its terms; none where it states none."""
    if args.mixture is not None:
        config = MixtureConfig.from_yaml(args.mixture, root=args.mixture_root)
        places = [(config.location(entry), entry.revision) for entry in config.entries]
    elif args.dataset_name is not None:
        places = [(args.dataset_name, args.dataset_revision)]
    else:
        yield "the embedded sample", list(sample_terms())
        return
    for place, revision in places:
        path = _find(place, TERMS_FILE, repo_type="dataset", revision=revision)
        yield place, [] if path is None else [read_terms(path.parent)]


def _model_terms(models: Sequence[str | None]) -> Iterator[tuple[str, list[DatasetTerms]]]:
    for place in models:
        if place is not None:
            path = _find(place, PROVENANCE_FILE, repo_type="model", revision=None)
            yield place, [] if path is None else read_provenance(path.parent)


def _find(place: str, name: str, *, repo_type: str, revision: str | None) -> Path | None:
    """A file of a folder or Hub repository, None where it has none or cannot be asked."""
    if Path(place).is_dir():
        path = Path(place) / name
        return path if path.is_file() else None
    try:
        return Path(hf_hub_download(place, name, repo_type=repo_type, revision=revision))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError):
        return None
