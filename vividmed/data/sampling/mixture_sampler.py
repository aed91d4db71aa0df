"""The order in which a mixture of data sets is drawn: a function of the seed and the position alone."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Sampler

from vividmed.data.sampling.keyed_rows import SampleKey
from vividmed.errors import VividMedError

_BLOCK = 4096
_CHOICE, _SHUFFLE = 0, 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Stratum:
    """Rows that are drawn alike.

    Attributes:
        name: for messages and to tell a changed mixture by.
        indices: (n,) int64 indices of the rows in the whole mixture, n >= 1.
        mass: what its probability is proportional to.
    """

    name: str
    indices: np.ndarray
    mass: float


class Draw(NamedTuple):
    """The stratum that a position of the order takes its row from, and how many rows it has given before."""

    stratum: int
    earlier: int


class MixtureDraws:
    """Which stratum comes at each position: independent draws in proportion to mass, made in blocks.

    Args:
        masses: of each stratum, above 0.
        seed: of the draws.
    """

    def __init__(self, masses: Sequence[float], *, seed: int):
        self.seed = seed
        edges = np.cumsum(np.asarray(masses, dtype=np.float64))
        self._edges = edges / edges[-1]

    def starting_at(self, position: int) -> Iterator[Draw]:
        """An endless sequence of draws from a position on."""
        block, offset = divmod(position, _BLOCK)
        counts = self.counts(position)
        while True:
            for stratum in self._block(block)[offset:].tolist():
                yield Draw(stratum, counts[stratum])
                counts[stratum] += 1
            block, offset = block + 1, 0

    def counts(self, position: int) -> list[int]:
        """How often each stratum was drawn before a position."""
        blocks, offset = divmod(position, _BLOCK)
        total = np.zeros(len(self._edges), dtype=np.int64)
        for block in range(blocks):
            total += np.bincount(self._block(block), minlength=len(total))
        total += np.bincount(self._block(blocks)[:offset], minlength=len(total))
        return total.tolist()

    def _block(self, block: int) -> np.ndarray:
        uniform = np.random.default_rng((self.seed, _CHOICE, block)).random(_BLOCK)
        return np.searchsorted(self._edges, uniform, side="right")


class MixtureSampler(Sampler[SampleKey]):
    """A map-style mixture's order: strata by chance, the rows of each stratum in shuffled passes.

    Every row of a stratum comes once before any comes again, however epochs are cut. The order is one endless
    sequence of which an epoch is a stretch, and it is that of all processes together: accelerate deals its batches
    out to processes, a data loader to workers, and neither changes it.

    Args:
        strata: at least one.
        seed: of the order.
        batch_size: rows of one optimizer step over all processes; an epoch is a whole number of steps.
    """

    def __init__(self, strata: Sequence[Stratum], *, seed: int, batch_size: int = 1):
        self.strata = tuple(strata)
        self.seed = seed
        self._length = math.ceil(sum(len(s.indices) for s in strata) / batch_size) * batch_size
        self._draws = MixtureDraws([stratum.mass for stratum in strata], seed=seed)
        self._start = self._position = 0

    def __len__(self) -> int:
        """Rows of an epoch: as many as the mixture has, filled up to a whole number of steps."""
        return self._length

    def set_epoch(self, epoch: int) -> None:
        """Iterate over an epoch from now on: from its begin, or from where a loaded state is inside of it."""
        if self._start // self._length != epoch:
            self._start = self._position = epoch * self._length

    def __iter__(self) -> Iterator[SampleKey]:
        """The epoch, or what a loaded state has left of it."""
        end = (self._start // self._length + 1) * self._length
        passes: dict[int, tuple[int, np.ndarray]] = {}
        for position, (number, earlier) in zip(
            range(self._start, end), self._draws.starting_at(self._start), strict=False
        ):
            indices = self.strata[number].indices
            epoch, place = divmod(earlier, len(indices))
            if number not in passes or passes[number][0] != epoch:
                generator = np.random.default_rng((self.seed, _SHUFFLE, number, epoch))
                passes[number] = epoch, generator.permutation(indices)
            self._position = position + 1
            yield SampleKey(epoch, int(passes[number][1][place]))

    def state_dict(self, position: int | None = None) -> dict[str, Any]:
        """Where the order stands.

        Args:
            position: rows trained on since the start of training. None takes those that were drawn, which is right
                only if no data loader reads ahead.
        """
        return {"position": self._position if position is None else position, "mixture": self._fingerprint()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state.

        Raises:
            VividMedError: the state is one of another mixture, weight or seed.
        """
        if state["mixture"] != self._fingerprint():
            raise VividMedError(
                "the state is that of another mixture: data sets, numbers of rows, weights or the seed have changed; "
                "restore them, or start training anew"
            )
        self._start = self._position = int(state["position"])

    def _fingerprint(self) -> str:
        parts = [f"{s.name} {len(s.indices)} {float(s.mass).hex()}" for s in self.strata]
        return hashlib.sha256("\n".join([str(self.seed), *parts]).encode()).hexdigest()
