"""A mixture read as a stream, for data sets that are not to be downloaded first."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from vividmed.data.conversations import Conversation
from vividmed.data.sampling.mixture import draw_conversation, load_entry
from vividmed.data.sampling.mixture_config import MixtureConfig, MixtureEntry
from vividmed.data.sampling.mixture_sampler import MixtureDraws
from vividmed.errors import VividMedError

_READ_AHEAD = 16


class MixtureStream(IterableDataset):
    """Endless samples of a mixture in one order, whatever the number of workers and processes.

    Data sets are drawn as in the map-style mixture; the rows of each come in passes, shuffled through a buffer. Every
    worker reads every row, images encoded, and passes on its own rows alone: the price of an order that does not
    depend on how the work is shared. Give it to a plain ``DataLoader`` with the same ``batch_size``; it deals batches
    out to processes itself, so do not let accelerate shard it again.

    Rows come with ``dataset``, ``row_kind``, ``epoch`` and ``index`` added, as in the map-style mixture.

    Args:
        config: the mixture or its YAML file.
        batch_size: of the data loader of each process.
        root: folder or Hub organisation of the data sets; replaces the file's.
        buffer_size: rows of each data set held for shuffling.
        process_index: of this process.
        num_processes: that share the batches.

    Raises:
        VividMedError: a data set is not found, lacks columns, or does not say how many rows it has; or a negative
            fraction is asked for, which needs all rows at once.
    """

    def __init__(
        self,
        config: MixtureConfig | Path | str,
        *,
        batch_size: int,
        root: str | None = None,
        buffer_size: int = 256,
        process_index: int = 0,
        num_processes: int = 1,
    ):
        self.config = (
            config if isinstance(config, MixtureConfig) else MixtureConfig.from_yaml(config, root=root)
        )
        self.batch_size = batch_size
        self.buffer_size = buffer_size
        self.process_index = process_index
        self.num_processes = num_processes
        for entry in self.config.entries:
            if entry.negative_fraction is not None:
                raise VividMedError(
                    f"{entry.name}: negative_fraction needs a mixture that is not streamed; leave it out"
                )
        self.streams = [load_entry(self.config, entry, streaming=True) for entry in self.config.entries]
        self.sizes = [
            _size(entry, stream) for entry, stream in zip(self.config.entries, self.streams, strict=True)
        ]
        masses = [entry.mass(size) for entry, size in zip(self.config.entries, self.sizes, strict=True)]
        self._draws = MixtureDraws(masses, seed=self.config.seed)
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
            VividMedError: naming the data set and the row.
        """
        entry = next(entry for entry in self.config.entries if entry.name == row["dataset"])
        return draw_conversation(entry, row, seed=self.config.seed)

    def state_dict(self, position: int) -> dict[str, int]:
        """Where training stands, given the rows trained on by all processes since its start."""
        return {"position": position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from a state: rows already trained on are read again and passed over."""
        self._start = state["position"]

    def _endless(self, number: int, count: int) -> Iterator[dict[str, Any]]:
        """Rows of one data set from its ``count``-th on, images encoded, pass after pass."""
        entry, size = self.config.entries[number], self.sizes[number]
        offset = sum(self.sizes[:number])
        stream = (
            self.streams[number].shuffle(seed=self.config.seed, buffer_size=self.buffer_size).decode(False)
        )
        epoch, skipped = divmod(count, size)
        while True:
            stream.set_epoch(epoch)
            place = -1
            for place, row in enumerate(_rows(stream)):
                if place >= skipped:
                    added = {
                        "dataset": entry.name,
                        "row_kind": entry.kind,
                        "epoch": epoch,
                        "index": offset + place,
                    }
                    yield {**row, **added}
            if place + 1 != size:
                raise VividMedError(
                    f"{entry.name}: {place + 1} rows were read where {size} were stated; correct num_rows"
                )
            epoch, skipped = epoch + 1, 0


def _rows(stream: Any) -> Iterator[dict[str, Any]]:
    # Row by row a stream would share itself out among the workers of a data loader; in batches it does not.
    for batch in stream.iter(batch_size=_READ_AHEAD):
        names = list(batch)
        for values in zip(*batch.values(), strict=True):
            yield dict(zip(names, values, strict=True))


def _size(entry: MixtureEntry, stream: Any) -> int:
    splits = stream.info.splits
    size = splits[entry.split].num_examples if splits and entry.split in splits else None
    size = entry.num_rows or size
    if not size:
        raise VividMedError(f"{entry.name}: the stream does not state how many rows it has; give num_rows")
    return size
