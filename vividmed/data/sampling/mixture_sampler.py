"""The order in which a mixture of data sets is drawn: a function of the seed and the position only."""

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    """Rows that are drawn with the same probability.

    Attributes:
        name: used in messages and to recognise a changed mixture.
        indices: (n,) int64 indices of the rows in the whole mixture, n >= 1.
        mass: unnormalised probability of the stratum.
    """

    name: str
    indices: np.ndarray
    mass: float


class Draw(NamedTuple):
    """The stratum that a position of the order takes its row from, and the number of rows it gave before."""

    stratum: int
    earlier: int


class MixtureDraws:
    """Draws the stratum of each position, independently and in proportion to mass.

    Draws are made in blocks, so that any position is reached without drawing all before it one by one.

    Args:
        masses: mass of each stratum, above 0.
        seed: seed of the draws.
    """

    def __init__(self, masses: Sequence[float], *, seed: int):
        self.seed = seed
        edges = np.cumsum(np.asarray(masses, dtype=np.float64))
        self._edges = edges / edges[-1]

    def starting_at(self, position: int) -> Iterator[Draw]:
        """Yield draws from a position on, endlessly."""
        block, offset = divmod(position, _BLOCK)
        counts = self.counts(position)
        while True:
            for stratum in self._block(block)[offset:].tolist():
                yield Draw(stratum, counts[stratum])
                counts[stratum] += 1
            block, offset = block + 1, 0

    def counts(self, position: int) -> list[int]:
        """Number of times that each stratum was drawn before a position."""
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
    """Order of a map-style mixture: strata at random, the rows of each stratum in shuffled passes.

    Every row of a stratum comes once before any comes again, wherever epochs begin. The order is one endless
    sequence, cut into epochs, and it covers all processes: accelerate deals its batches out to processes and a data
    loader deals them out to workers, and neither changes the order.

    Args:
        strata: at least one.
        seed: seed of the order.
        batch_size: number of rows per optimizer step over all processes; an epoch is a whole number of steps.
    """

    def __init__(self, strata: Sequence[Stratum], *, seed: int, batch_size: int = 1):
        self.strata = tuple(strata)
        self.seed = seed
        self._length = math.ceil(sum(len(s.indices) for s in strata) / batch_size) * batch_size
        self._draws = MixtureDraws([stratum.mass for stratum in strata], seed=seed)
        self._start = self._position = 0

    def __len__(self) -> int:
        """Number of rows per epoch: that of the mixture, rounded up to a whole number of steps."""
        return self._length

    def set_epoch(self, epoch: int) -> None:
        """Select the epoch to iterate over, from its start, or from a loaded state if that lies inside it."""
        if self._start // self._length != epoch:
            self._start = self._position = epoch * self._length

    def __iter__(self) -> Iterator[SampleKey]:
        """Yield the epoch, or what a loaded state has left of it."""
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
        """State to resume from.

        Args:
            position: number of rows trained on since the start of training. None takes the number of rows drawn,
                which is correct only if no data loader reads ahead.
        """
        return {"position": self._position if position is None else position, "mixture": self._fingerprint()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a state.

        Raises:
            VividMedError: the state belongs to another mixture, weight or seed.
        """
        check_fingerprint(state, self._fingerprint())
        self._start = self._position = int(state["position"])

    def _fingerprint(self) -> str:
        return mixture_fingerprint(self.seed, ((s.name, len(s.indices), s.mass) for s in self.strata))


def mixture_fingerprint(seed: int, strata: Iterable[tuple[str, int, float]]) -> str:
    """Hash of everything that decides on the order: the seed, and name, size and mass of each stratum."""
    parts = [f"{name} {size} {float(mass).hex()}" for name, size, mass in strata]
    return hashlib.sha256("\n".join([str(seed), *parts]).encode()).hexdigest()


def check_fingerprint(state: Mapping[str, Any], fingerprint: str) -> None:
    """Refuse the state of another mixture.

    Raises:
        VividMedError: the fingerprints differ.
    """
    if state["mixture"] != fingerprint:
        raise VividMedError(
            "the state belongs to another mixture: data sets, numbers of rows, weights or the seed have changed; "
            "restore them, or start training anew"
        )
