"""Rows of a stage: from the Hub, a folder, or the embedded sample."""

from collections.abc import Sequence
from typing import Any, get_args

from datasets import Dataset, DatasetDict

from vividmed.data.loading import load_prepared
from vividmed.data.own.direct import prepared_location
from vividmed.data.sampling.mixture import Mixture, load_mixture
from vividmed.data.sampling.mixture_config import MixtureConfig
from vividmed.data.sampling.mixture_stream import MixtureStream
from vividmed.data.schema import RowKind, schema
from vividmed.errors import VividMedError
from vividmed.training.settings.arguments import DataArguments, VividMedTrainingArguments


def load_rows(
    kind: RowKind, args: DataArguments, training_args: VividMedTrainingArguments
) -> tuple[Dataset | Mixture | MixtureStream, Dataset | None]:
    """Training and evaluation rows; with a mixture, evaluation rows only if ``dataset_name`` names them.

    Args:
        kind: kind of the rows, see :mod:`vividmed.data.schema`.
        args: data sets and splits.
        training_args: batch size and processes, by which a stream divides its rows.

    Raises:
        VividMedError: the data set or a split is not found, is empty, or lacks columns; or an argument has no effect on a
            mixture.
    """
    if args.mixture is not None:
        if training_args.train_sampling_strategy == "random":
            raise VividMedError(
                "--train_sampling_strategy random has no effect with --mixture, which draws its own random order; leave "
                "it out"
            )
        mixture = _load_mixture(args.mixture, args, training_args)
        if args.dataset_name is None:
            return mixture, None
        (evaluation,) = _load_splits(kind, args, [args.eval_split])
        return mixture, _first(evaluation, args.max_eval_samples)
    train, evaluation = _load_splits(kind, args, [args.train_split, args.eval_split])
    return _first(train, args.max_train_samples), _first(evaluation, args.max_eval_samples)


def find_row_kind(args: DataArguments) -> RowKind:
    """Kind of the rows that the arguments name, by their columns.

    Rows of several kinds in a mixture are trained on like grounded reports. The embedded sample has all kinds; questions
    and reports are taken.

    Raises:
        VividMedError: the data set cannot be loaded, or its columns are those of no kind.
    """
    if args.dataset_name is not None:
        splits = _load("vision_language", args)
        columns = {column for rows in splits.values() for column in rows.column_names}
        for kind in get_args(RowKind):
            if set(schema(kind)) <= columns:
                return kind
        raise VividMedError(
            f"--dataset_name {args.dataset_name}: its columns ({', '.join(sorted(columns))}) are those of no kind of row; "
            "see docs/training.md for the format"
        )
    if args.mixture is not None:
        kinds = {entry.row_kind for entry in MixtureConfig.from_yaml(args.mixture).entries}
        return next((kind for kind in get_args(RowKind) if kinds == {kind}), "grounded_report")
    return "vision_language"


def _load_mixture(
    file: str, args: DataArguments, training_args: VividMedTrainingArguments
) -> Mixture | MixtureStream:
    if not args.streaming:
        return load_mixture(file, root=args.mixture_root, allow_outside_images=args.allow_outside_images)
    return MixtureStream(
        file,
        batch_size=training_args.train_batch_size,
        root=args.mixture_root,
        allow_outside_images=args.allow_outside_images,
        process_index=training_args.process_index,
        num_processes=training_args.world_size,
    )


def _load_splits(kind: RowKind, args: DataArguments, names: Sequence[str]) -> list[Dataset]:
    name = args.dataset_name or "the embedded sample"
    splits = _load(kind, args)
    loaded = [_split(splits, split, name) for split in names]
    for rows in loaded:
        missing = [column for column in schema(kind) if column not in rows.column_names]
        if missing:
            raise VividMedError(
                f"{name}: lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)} of {kind} rows; "
                "see docs/training.md for the format"
            )
    return loaded


def _load(kind: RowKind, args: DataArguments) -> DatasetDict:
    if args.dataset_name is None:
        from vividmed.data.sample import load_sample

        return load_sample(kind, with_noncommercial=args.with_noncommercial)
    return load_prepared(
        prepared_location(args.dataset_name),
        args.dataset_config,
        revision=args.dataset_revision,
        allow_outside_images=args.allow_outside_images,
        what=f"--dataset_name {args.dataset_name}",
        row_kinds=(kind,),
    )


def _split(splits: DatasetDict, name: str, dataset: str) -> Any:
    if name not in splits:
        raise VividMedError(
            f"{dataset} has no split {name!r}; name one of {', '.join(splits)} with --*_split"
        )
    if len(splits[name]) == 0:
        raise VividMedError(f"{dataset}: the split {name!r} is empty")
    return splits[name]


def _first(rows: Dataset, number: int | None) -> Dataset:
    return rows if number is None else rows.select(range(min(number, len(rows))))
