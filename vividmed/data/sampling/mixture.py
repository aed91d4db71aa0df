"""Mixtures of data sets to train on: rows by index, and conversations about them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from torch.utils.data import Dataset, IterableDataset

from vividmed.data.bad_rows import OnBadSample, prepare_row, skip_or_raise
from vividmed.data.conversations import Conversation
from vividmed.data.loading import load_prepared
from vividmed.data.sampling.keyed_rows import KeyedRows, SampleKey
from vividmed.data.sampling.mixture_config import MixtureConfig, MixtureEntry
from vividmed.data.sampling.mixture_conversations import draw_conversation
from vividmed.data.sampling.mixture_sampler import MixtureSampler, Stratum
from vividmed.data.schema import plain_target, schema
from vividmed.data.taxonomy import Taxonomy
from vividmed.errors import VividMedError

_PRESENCE_LIST = "Results:"
_WITHOUT_PIXELS = {
    "localization": ["targets"],
    "vision_language": ["messages"],
    "grounded_report": ["phrases"],
}


class Mixture(Dataset):
    """Several data sets, one after the other, as a map-style data set.

    Rows come as stored, images encoded (see :func:`vividmed.data.batches.examples.read_images`). Four columns are
    added: ``dataset``, its name; ``row_kind``; ``epoch``, the pass over its data set, None for a plain index; and
    ``index``, in the mixture.

    Args:
        config: settings of the mixture.
        rows: rows of each entry, in the same order.

    Raises:
        VividMedError: a data set is empty, or a negative fraction cannot be kept.
    """

    def __init__(self, config: MixtureConfig, rows: Sequence[datasets.Dataset]):
        self.config = config
        self.rows = tuple(rows)
        self._stored = [each.with_format("arrow") for each in self.rows]
        sizes = [len(each) for each in self.rows]
        for entry, size in zip(config.entries, sizes, strict=True):
            if not size:
                raise VividMedError(
                    f"{entry.name}: the split {entry.split!r} is empty; drop it from the mixture"
                )
        self._starts = np.concatenate([[0], np.cumsum(sizes)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, key: SampleKey | int) -> dict[str, Any]:
        epoch, index = key if isinstance(key, SampleKey) else (None, int(key))
        number, place = self._find(index)
        entry = self.config.entries[number]
        (row,) = self._stored[number][place].to_pylist()
        return {**row, "dataset": entry.name, "row_kind": entry.row_kind, "epoch": epoch, "index": index}

    @cached_property
    def strata(self) -> list[Stratum]:
        """The data sets with their masses; those with a negative fraction are split into two strata."""
        strata = []
        for entry, rows, start in zip(self.config.entries, self.rows, self._starts[:-1], strict=True):
            indices = np.arange(start, start + len(rows))
            mass = entry.mass(len(rows))
            if entry.negative_fraction is None:
                strata.append(Stratum(name=entry.name, indices=indices, mass=mass))
                continue
            negative = negative_rows(entry, rows)
            fractions = (1 - entry.negative_fraction, entry.negative_fraction)
            for chosen, fraction, name in zip(
                (~negative, negative), fractions, ("positive", "negative"), strict=True
            ):
                strata.append(
                    Stratum(name=f"{entry.name} {name}", indices=indices[chosen], mass=mass * fraction)
                )
        return strata

    def order(self, *, batch_size: int = 1) -> MixtureSampler:
        """Sampler of the order to train in.

        Args:
            batch_size: number of rows per optimizer step over all processes.
        """
        return MixtureSampler(self.strata, seed=self.config.seed, batch_size=batch_size)

    def conversation(self, row: Mapping[str, Any]) -> Conversation:
        """The conversation about a row of this mixture, a function of the seed and the row's epoch and index.

        Raises:
            VividMedError: no conversation can be drawn; the message names the data set and the row.
        """
        return draw_conversation(self.config.entry(row["dataset"]), row, seed=self.config.seed)

    def _find(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"the mixture has {len(self)} rows, not a row {index}")
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        return number, index - int(self._starts[number])


def keyed_rows(rows: datasets.Dataset | Mixture | IterableDataset) -> KeyedRows | Mixture | IterableDataset:
    """Rows by :class:`~vividmed.data.sampling.keyed_rows.SampleKey`; a mixture or its stream is returned as it is."""
    return rows if isinstance(rows, Mixture | IterableDataset) else KeyedRows(rows)


def load_mixture(
    config: MixtureConfig | Path | str, *, root: str | None = None, allow_outside_images: bool = False
) -> Mixture:
    """Load the data sets of a mixture with ``datasets.load_dataset``.

    Args:
        config: the mixture, its YAML file, or a stage's configuration that names one.
        root: folder or Hub organisation of the prepared data sets; replaces the file's.
        allow_outside_images: let rows name image files outside their data set's folder.

    Raises:
        VividMedError: a data set or split is not found, lacks columns of its kind, is empty, or names image files
            outside its folder.
    """
    if not isinstance(config, MixtureConfig):
        config = MixtureConfig.from_yaml(config, root=root)
    rows = [
        load_entry(config, entry, streaming=False, allow_outside_images=allow_outside_images)
        for entry in config.entries
    ]
    return Mixture(config, rows)


def load_entry(
    config: MixtureConfig, entry: MixtureEntry, *, streaming: bool, allow_outside_images: bool = False
) -> Any:
    """Load one data set of a mixture and check its columns.

    Raises:
        VividMedError: the data set is not found, or lacks columns of its kind.
    """
    location = config.location(entry)
    rows = load_prepared(
        location,
        entry.config,
        split=entry.split,
        revision=entry.revision,
        streaming=streaming,
        allow_outside_images=allow_outside_images,
        row_kinds=(entry.row_kind,),
        what=f"{entry.name}: {location}",
        remedy="prepare the data set, or correct root, path or split",
    )
    columns = rows.column_names or ()
    if missing := [column for column in schema(entry.row_kind) if column not in columns]:
        raise VividMedError(
            f"{entry.name}: {location} lacks the column {missing[0]!r} of {entry.row_kind} rows; prepare it again"
        )
    return rows


def negative_rows(entry: MixtureEntry, rows: datasets.Dataset) -> np.ndarray:
    """Find the rows without a positive finding; only their text is read.

    A localization row is negative if none of its targets is an anomaly, a grounded report if none of its phrases
    shows one, and a vision-language row if its list of findings says ``yes`` to none.

    Returns:
        (n,) bool.

    Raises:
        VividMedError: all rows are negative or none is, so that the fraction cannot be kept.
    """
    columns = rows.select_columns(_WITHOUT_PIXELS[entry.row_kind])
    negative = np.fromiter(
        (_is_negative(entry.row_kind, row) for row in columns), dtype=bool, count=len(rows)
    )
    if negative.all() or not negative.any():
        raise VividMedError(
            f"{entry.name}: {'every' if negative.any() else 'no'} row is without a positive finding, so "
            f"negative_fraction {entry.negative_fraction} cannot be kept; leave it out"
        )
    return negative


@dataclass(frozen=True, kw_only=True)
class SampledConversation:
    """One training sample: a row, images encoded, and the conversation about it."""

    dataset: str
    row: dict[str, Any]
    conversation: Conversation


def sample_conversations(
    config: MixtureConfig | Path | str,
    n: int,
    *,
    root: str | None = None,
    on_bad_sample: OnBadSample = "error",
) -> list[SampledConversation]:
    """The first samples of training on a mixture.

    Args:
        config: the mixture, its YAML file, or a stage's configuration that names one.
        n: number of samples.
        root: folder or Hub organisation of the prepared data sets; replaces the file's.
        on_bad_sample: what to do with rows that no conversation can be drawn about: ``"error"``, or ``"skip"`` to
            leave them out with a warning.

    Raises:
        VividMedError: as :func:`load_mixture`, or for a row that no conversation can be drawn about.
    """
    mixture = load_mixture(config, root=root)
    samples: list[SampledConversation] = []
    order = mixture.order()
    for epoch in range(-(-n // len(order))):
        order.set_epoch(epoch)
        for key in order:
            if len(samples) == n:
                break
            row = mixture[key]
            with skip_or_raise(on_bad_sample):
                conversation = prepare_row(row, mixture.conversation)
                samples.append(
                    SampledConversation(dataset=row["dataset"], row=row, conversation=conversation)
                )
    return samples


def _is_negative(row_kind: str, row: dict[str, Any]) -> bool:
    if row_kind == "vision_language":
        answers = [message["content"] for message in row["messages"][1::2]]
        lists = [answer for answer in answers if answer.startswith(_PRESENCE_LIST)]
        return bool(lists) and not any(": yes" in answer for answer in lists)
    if row_kind == "localization":
        targets = row["targets"]
    else:
        targets = [plain_target(target) for phrase in row["phrases"] for target in phrase["targets"]]
    taxonomy = Taxonomy.load()
    return not any(taxonomy[target].category == "anomaly" for target in targets)
