"""A mixture read as a stream, for data sets that are not to be downloaded first."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import load_dataset_builder
from torch.utils.data import IterableDataset, get_worker_info

from vividmed.data.conversations import Conversation
from vividmed.data.loading import check_row_paths, image_roots
from vividmed.data.sampling.mixture import load_entry
from vividmed.data.sampling.mixture_config import MixtureConfig, MixtureEntry
from vividmed.data.sampling.mixture_conversations import draw_conversation
from vividmed.data.sampling.mixture_sampler import MixtureDraws, check_fingerprint, mixture_fingerprint
from vividmed.errors import VividMedError

_READ_AHEAD = 16


class MixtureStream(IterableDataset):
    """An endless stream of a mixture's rows, in one order whatever the number of workers and processes.

    Data sets are drawn as in the map-style :class:`~vividmed.data.sampling.mixture.Mixture`; the rows of each come in
    passes, shuffled through a buffer. Rows come as stored, images encoded, with the same added columns: ``dataset``,
    ``row_kind``, ``epoch`` and ``index``. :func:`~vividmed.data.sampling.mixture_conversations.mixture_conversation`
    draws their conversations.

    Every worker of every process reads every row and keeps its own: batch ``i`` belongs to process
    ``i % num_processes``, and there to worker ``i // num_processes % num_workers``, which is the order in which a
    ``DataLoader`` asks its workers. So give the stream to a plain ``DataLoader`` with the same ``batch_size``, and do
    not let accelerate shard it again. The stream never ends: the number of training steps must be given.

    To resume, pass the state to :meth:`load_state_dict` before iterating; rows already trained on are read and
    skipped, without decoding an image.

    Args:
        config: the mixture, its YAML file, or a stage's configuration that names one.
        batch_size: batch size of each process's data loader.
        root: folder or Hub organisation of the data sets; replaces the file's.
        buffer_size: number of rows of each data set kept in memory for shuffling.
        allow_outside_images: let rows name image files outside their data set's folder.
        process_index: rank of this process.
        num_processes: number of processes that share the batches.

    Raises:
        VividMedError: a data set is not found, lacks columns, or does not state its number of rows; or a negative
            fraction is asked for, which needs all rows at once.

    Example:
        >>> stream = MixtureStream("mixture.yaml", batch_size=4, process_index=rank, num_processes=world_size)
        >>> stream.load_state_dict(stream.state_dict(position=step * 4 * world_size))
        >>> loader = DataLoader(stream, batch_size=4, num_workers=2, collate_fn=collator)
    """

    def __init__(
        self,
        config: MixtureConfig | Path | str,
        *,
        batch_size: int,
        root: str | None = None,
        buffer_size: int = 256,
        allow_outside_images: bool = False,
        process_index: int = 0,
        num_processes: int = 1,
    ):
        self.config = (
            config if isinstance(config, MixtureConfig) else MixtureConfig.from_yaml(config, root=root)
        )
        self.batch_size = batch_size
        self.buffer_size = buffer_size
        self.allow_outside_images = allow_outside_images
        self.process_index = process_index
        self.num_processes = num_processes
        for entry in self.config.entries:
            if entry.negative_fraction is not None:
                raise VividMedError(
                    f"{entry.name}: negative_fraction cannot be kept when streaming; leave it out, or do not stream"
                )
        self.streams = [load_entry(self.config, entry, streaming=True) for entry in self.config.entries]
        self.sizes = [_size(self.config, entry) for entry in self.config.entries]
        self._masses = [entry.mass(size) for entry, size in zip(self.config.entries, self.sizes, strict=True)]
        self._draws = MixtureDraws(self._masses, seed=self.config.seed)
        self._start = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        worker_id, num_workers = (worker.id, worker.num_workers) if worker else (0, 1)
        counts = self._draws.counts(self._start)
        sources = [self._endless(number, count) for number, count in enumerate(counts)]
        for position, draw in enumerate(self._draws.starting_at(self._start)):
            row = next(sources[draw.stratum])
            batch = position // self.batch_size
            mine = batch % self.num_processes == self.process_index
            if mine and batch // self.num_processes % num_workers == worker_id:
                yield row

    def conversation(self, row: dict[str, Any]) -> Conversation:
        """The conversation about a row of the stream, a function of the seed and the row's epoch and index.

        Raises:
            VividMedError: no conversation can be drawn; the message names the data set and the row.
        """
        return draw_conversation(self.config.entry(row["dataset"]), row, seed=self.config.seed)

    def state_dict(self, position: int) -> dict[str, Any]:
        """State to resume from.

        Args:
            position: number of rows that all processes together have trained on.
        """
        return {"position": position, "mixture": self.fingerprint}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a state.

        Raises:
            VividMedError: the state belongs to another mixture, weight, seed or buffer size.
        """
        check_fingerprint(state, self.fingerprint)
        self._start = int(state["position"])

    @property
    def fingerprint(self) -> str:
        """Hash of everything that decides on the order: names, sizes and weights of the data sets, seed and buffer."""
        names = [f"{entry.name} streamed through {self.buffer_size}" for entry in self.config.entries]
        return mixture_fingerprint(self.config.seed, zip(names, self.sizes, self._masses, strict=True))

    def _endless(self, number: int, count: int) -> Iterator[dict[str, Any]]:
        """Rows of one data set from its ``count``-th on, images encoded, pass after pass."""
        entry, size = self.config.entries[number], self.sizes[number]
        offset = sum(self.sizes[:number])
        location = self.config.location(entry)
        roots = image_roots(location)
        stream = (
            self.streams[number].shuffle(seed=self.config.seed, buffer_size=self.buffer_size).decode(False)
        )
        epoch, skipped = divmod(count, size)
        while True:
            stream.set_epoch(epoch)
            place = -1
            for place, row in enumerate(_rows(stream)):
                if place >= skipped:
                    if not self.allow_outside_images:
                        check_row_paths(row, location, roots)
                    added = {
                        "dataset": entry.name,
                        "row_kind": entry.row_kind,
                        "epoch": epoch,
                        "index": offset + place,
                    }
                    yield {**row, **added}
            if place + 1 != size:
                raise VividMedError(
                    f"{entry.name}: the stream has {place + 1} rows, but {size} were stated; correct num_rows"
                )
            epoch, skipped = epoch + 1, 0


def _rows(stream: Any) -> Iterator[dict[str, Any]]:
    # Iterated row by row, a stream divides itself among the workers of a data loader; in batches it does not.
    for batch in stream.iter(batch_size=_READ_AHEAD):
        names = list(batch)
        for values in zip(*batch.values(), strict=True):
            yield dict(zip(names, values, strict=True))


def _size(config: MixtureConfig, entry: MixtureEntry) -> int:
    """Number of rows of a data set: as its entry, its card or the footers of its Parquet files state it."""
    if entry.num_rows is not None:
        return entry.num_rows
    builder = load_dataset_builder(config.location(entry), entry.config, revision=entry.revision)
    splits = builder.info.splits or {}
    if entry.split in splits and splits[entry.split].num_examples:
        return splits[entry.split].num_examples
    files = list((builder.config.data_files or {}).get(entry.split, ()))
    if not files or not all(str(file).endswith(".parquet") for file in files):
        raise VividMedError(f"{entry.name}: the stream does not state how many rows it has; give num_rows")
    try:
        return sum(_count_rows(str(file)) for file in files)
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:300]
        raise VividMedError(f"{entry.name}: its rows cannot be counted ({reason}); give num_rows") from error


def _count_rows(file: str) -> int:
    with fsspec.open(file) as stream:
        return pq.read_metadata(stream).num_rows
