"""How each tensor of a model is made from tensors of other checkpoints: planned first, then made one at a time.

A plan knows every tensor of the model and every tensor of the checkpoints before any of them is read. It is tried on
tensors without memory, so that wrong shapes and missing tensors are found at once.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import nn

from vividmed.errors import VividMedError
from vividmed.models.configuration import one_line
from vividmed.models.conversion.initialization import new_tensor
from vividmed.models.conversion.reading import CheckpointReader
from vividmed.models.conversion.report import LoadReport

Make = Callable[..., torch.Tensor]


@dataclass(frozen=True)
class Source:
    """A tensor of a checkpoint."""

    reader: CheckpointReader
    name: str

    @property
    def shape(self) -> torch.Tensor:
        """A tensor without memory of the same shape and dtype."""
        return self.reader.shapes[self.name]

    def read(self) -> torch.Tensor:
        """The tensor; see :meth:`CheckpointReader.read`."""
        return self.reader.read(self.name)


@dataclass(frozen=True)
class Rule:
    """How a tensor is made: ``make`` of the tensors of ``sources``, or the only one of them as it is."""

    sources: tuple[Source, ...]
    make: Make | None = None

    def apply(self, *tensors: torch.Tensor) -> torch.Tensor:
        """Make the tensor from those of its sources."""
        return tensors[0] if self.make is None else self.make(*tensors)


@dataclass
class ConversionPlan:
    """How every tensor of a model is made.

    Attributes:
        model: model on the meta device, whose tensors are to be made.
        seed: random seed of new tensors.
        rules: how to make a tensor, by its name in the model; tensors without a rule are new or missing.
        new: names of tensors that may be new.
        ignored: tensors of the checkpoints that nothing computes with.
        allow_partial: tolerate missing and unexpected tensors: the former are new, the latter ignored.
    """

    model: nn.Module
    seed: int = 0
    rules: dict[str, Rule] = field(default_factory=dict)
    new: set[str] = field(default_factory=set)
    ignored: list[Source] = field(default_factory=list)
    allow_partial: bool = False

    def __post_init__(self) -> None:
        self.expected = self.model.state_dict(keep_vars=True)

    def copy(self, source: Source, name: str) -> None:
        """Copy a tensor, if the model has one of that name."""
        if name in self.expected:
            self.rules[name] = Rule((source,))

    def add(self, name: str, sources: Iterable[Source], make: Make) -> None:
        """Make a tensor of the model from those of checkpoints."""
        self.rules[name] = Rule(tuple(sources), make)

    def make(self, name: str) -> torch.Tensor:
        """Make a tensor of the model."""
        rule = self.rules.get(name)
        if rule is None:
            return new_tensor(self.model, name, seed=self.seed)
        return rule.apply(*(source.read() for source in rule.sources))

    def names(self) -> list[str]:
        """Names of all tensors to make, in the order in which each file is opened once; new ones are last.

        Tied tensors are named once.
        """
        kept: dict[int, str] = {}
        for name, tensor in self.expected.items():
            kept.setdefault(id(tensor), name)
        readers = [id(rule.sources[0].reader) for rule in self.rules.values()]
        order = {reader: index for index, reader in enumerate(dict.fromkeys(readers))}

        def position(name: str) -> tuple[int, int]:
            rule = self.rules.get(name)
            if rule is None:
                return len(order), 0
            first = rule.sources[0]
            return order[id(first.reader)], first.reader.position(first.name)

        return sorted(kept.values(), key=position)

    def report(self, given: Iterable[Source]) -> LoadReport:
        """Account for every tensor of the model and of the checkpoints.

        Args:
            given: the tensors of the checkpoints that must be used or ignored.
        """
        report = LoadReport()
        used = {(id(source.reader), source.name) for source in self.ignored}
        for name in self.names():
            rule = self.rules.get(name)
            if rule is None:
                (report.initialized if name in self.new else report.missing).append(name)
                continue
            used |= {(id(source.reader), source.name) for source in rule.sources}
            copied = rule.make is None and rule.sources[0].name == name
            (report.copied if copied else report.converted).append(name)
        report.dropped = [source.name for source in self.ignored]
        report.unexpected = [source.name for source in given if (id(source.reader), source.name) not in used]
        if self.allow_partial:
            report.initialized += report.missing
            report.dropped += report.unexpected
            report.missing, report.unexpected = [], []
        return report

    def check_shapes(self) -> None:
        """Try every rule on tensors without memory.

        Raises:
            VividMedError: a tensor would have another shape than the model needs.
        """
        for name in self.names():
            rule = self.rules.get(name)
            if rule is None:
                continue
            sources = ", ".join(source.name for source in rule.sources)
            file = rule.sources[0].reader.place
            shapes = [tuple(source.shape.shape) for source in rule.sources]
            wanted = tuple(self.expected[name].shape)
            try:
                found = tuple(rule.apply(*(source.shape for source in rule.sources)).shape)
            except VividMedError as error:
                raise VividMedError(f"{file}: {sources}: {error}") from error
            except (RuntimeError, IndexError, ValueError) as error:
                raise VividMedError(
                    f"{file}: {sources} of shape {shapes[0]} cannot be made {name} of shape {wanted} "
                    f"({one_line(error)[:120]}); give the checkpoint that belongs to its config.json"
                ) from error
            if found != wanted:
                raise VividMedError(
                    f"{file}: {sources} of shape {shapes[0]} gives {name} the shape {found}, but the configuration "
                    f"needs {wanted}; give the checkpoint that belongs to its config.json"
                )


def all_of(reader: CheckpointReader, prefix: str = "") -> list[Source]:
    """The tensors of a checkpoint, or those whose names begin with ``prefix``."""
    return [Source(reader, name) for name in reader if name.startswith(prefix)]


def concatenated(*tensors: torch.Tensor) -> torch.Tensor:
    """Tensors one after another along their first axis."""
    return torch.cat(tensors)


def fitted_rows(vocab_size: int) -> Make:
    """A function that gives an embedding table the rows of new tokens, at the mean of the existing ones."""
    return partial(_fit_rows, vocab_size=vocab_size)


def _fit_rows(rows: torch.Tensor, *, vocab_size: int) -> torch.Tensor:
    if len(rows) > vocab_size:
        raise VividMedError(f"has {len(rows)} rows, more than the model's vocab_size {vocab_size}")
    return rows if len(rows) == vocab_size else add_token_rows(rows, vocab_size - len(rows))


def add_token_rows(rows: torch.Tensor, count: int) -> torch.Tensor:
    """Append rows for new tokens at the mean of the existing ones (random rows would be far too long)."""
    # Mean and result are made without a float32 copy of the table.
    mean = rows.mean(0, keepdim=True, dtype=torch.float32).to(rows.dtype)
    return torch.cat([rows, mean.expand(count, -1)])
