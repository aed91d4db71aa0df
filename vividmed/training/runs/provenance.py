"""Terms that a model may be shared under: those of all data that its weights come from, directly or through a model."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vividmed.data.known_terms import known_terms
from vividmed.data.own.direct import prepared_location
from vividmed.data.sampling.keyed_rows import KeyedRows
from vividmed.data.sampling.mixture import Mixture
from vividmed.data.sampling.mixture_config import MixtureConfig
from vividmed.data.sampling.mixture_stream import MixtureStream
from vividmed.data.terms import (
    PROVENANCE_FILE,
    TERMS_FILE,
    DatasetTerms,
    RowSource,
    combine_terms,
    read_all_terms,
    read_provenance,
    row_sources,
    terms_of_rows,
)
from vividmed.training.adapters.adapted_model import ADAPTER_CONFIG
from vividmed.training.adapters.peft import adapter_base
from vividmed.training.hub_files import find_file
from vividmed.training.settings.arguments import DataArguments

_STARTED_FROM = ("model_name_or_path", "segmenter", "instance_segmenter")


def run_provenance(train_rows: Any, data_args: DataArguments, models: Sequence[str]) -> list[DatasetTerms]:
    """Terms of everything that a run starts from; what is unknown or contradicts itself is a record of its own.

    Args:
        train_rows: rows that the run trains on, a mixture, or its stream.
        data_args: where the rows come from.
        models: folders or Hub ids of the models it starts from.

    Raises:
        VividMedError: a file of terms is damaged.
    """
    inherited = [terms for model in models for terms in model_terms(model)]
    return combine_terms([*rows_terms(train_rows, stated=list(_stated(data_args))), *inherited])


def started_from(arguments: Sequence[Any]) -> list[str]:
    """Folders and Hub ids of all models that a run's arguments name as its start."""
    named = (getattr(group, name, None) for group in arguments for name in _STARTED_FROM)
    return [place for place in named if place is not None]


def rows_terms(rows: Any, *, stated: Sequence[DatasetTerms] = ()) -> list[DatasetTerms]:
    """Terms of the sources that rows name, or of the data sets of a stream.

    Args:
        rows: rows, a mixture of data sets, or its stream.
        stated: terms that came with the data.
    """
    if isinstance(rows, KeyedRows):
        rows = rows.rows
    sources: set[RowSource]
    if isinstance(rows, MixtureStream):
        sources = set(stream_sources(rows))
    else:
        parts = rows.rows if isinstance(rows, Mixture) else [rows]
        sources = {source for part in parts for source in row_sources(part)}
    return terms_of_rows(sources, stated=stated, known=known_terms())


def stream_sources(stream: MixtureStream) -> list[RowSource]:
    """A source for each data set of a stream, of unknown licence: its rows are not read before training.

    The name of an entry proves nothing about its rows, so a model that is trained on a stream stays private.
    """
    return [RowSource(entry.name, None) for entry in stream.config.entries]


def model_terms(place: str | Path) -> list[DatasetTerms]:
    """Terms of all data that a model, adapter or checkpoint was trained on, its base model included.

    Args:
        place: local folder or Hub id.

    Returns:
        At least one record; unknown terms where the model does not state its provenance.
    """
    path = find_file(place, PROVENANCE_FILE)
    if path is not None:
        return read_provenance(path.parent)
    unknown = DatasetTerms.unknown(f"training data of {Path(place).name}", f"it has no {PROVENANCE_FILE}")
    config = find_file(place, ADAPTER_CONFIG)
    if config is None:
        return [unknown]
    return combine_terms([unknown, *model_terms(adapter_base(config.parent))])


def _stated(args: DataArguments) -> Iterator[DatasetTerms]:
    """Terms in the files of the data sets that are trained on."""
    places: list[tuple[str, str | None]] = []
    if args.mixture is not None:
        config = MixtureConfig.from_yaml(args.mixture, root=args.mixture_root)
        places = [(config.location(entry), entry.revision) for entry in config.entries]
    elif args.dataset_name is not None:
        places = [(prepared_location(args.dataset_name), args.dataset_revision)]
    for place, revision in places:
        path = find_file(place, TERMS_FILE, repo_type="dataset", revision=revision)
        if path is not None:
            yield from read_all_terms(path.parent)
