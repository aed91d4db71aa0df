"""Statistics since the last log line: named losses, throughput, and the first loss that was not finite."""

import time
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from vividmed.data.batches.collator import BatchSize
from vividmed.errors import VividMedError
from vividmed.training.throughput import SegmenterCost, StepCost, peak_flops


class NonFiniteLossError(VividMedError):
    """The loss became NaN or infinite; nothing has been saved since."""


@dataclass
class _Record:
    step: int
    ids: list[str]
    components: dict[str, torch.Tensor]


@dataclass
class StepStatistics:
    """Collects statistics of micro-batches on the device and reads them once per log line.

    Losses stay tensors until :meth:`summary` or :meth:`check`, so that no step waits for the device.

    Args:
        accelerator: reduces over the processes of a distributed run.
        cost: floating-point operations of a step, for the utilisation of devices whose peak is known.
    """

    accelerator: Accelerator
    cost: StepCost | SegmenterCost
    _records: list[_Record] = field(default_factory=list)
    _sizes: list[BatchSize] = field(default_factory=list)
    _training_seconds: float = 0.0
    _waiting_seconds: float = 0.0
    _resumed_at: float | None = None

    def add_losses(self, step: int, ids: list[str], components: dict[str, torch.Tensor]) -> None:
        """Record the loss of one micro-batch and its parts, detached and on their device."""
        self._records.append(
            _Record(step, ids, {name: value.detach().float() for name, value in components.items()})
        )

    def add_size(self, size: BatchSize) -> None:
        self._sizes.append(size)

    def add_waiting(self, seconds: float) -> None:
        """Record the time that a step waited for its data, in seconds."""
        self._waiting_seconds += seconds

    def start_clock(self) -> None:
        """Start the clock when training starts or continues after an evaluation or a checkpoint."""
        self._resumed_at = time.perf_counter()

    def step_done(self) -> None:
        """Add the time since the last step, or since :meth:`start_clock`."""
        now = time.perf_counter()
        if self._resumed_at is not None:
            self._training_seconds += now - self._resumed_at
        self._resumed_at = now

    def check(self) -> None:
        """Check that all losses since the last log line are finite, on every process.

        Raises:
            NonFiniteLossError: naming the step, the parts and the ids of the rows of the first bad micro-batch.
        """
        self._check(self._stacked())

    def summary(self) -> dict[str, float]:
        """Return averages and rates since the last call; reads the device once and starts a new interval.

        Raises:
            NonFiniteLossError: see :meth:`check`.
        """
        losses = self._stacked()
        self._check(losses)
        steps = len({record.step for record in self._records})
        logs: dict[str, float] = {}
        if losses is not None:
            mean = self.accelerator.reduce(losses.sum(dim=0), reduction="mean").tolist()
            logs = {
                name: value / steps for name, value in zip(self._names(), mean, strict=True) if name != "loss"
            }
        logs |= self._throughput()
        self._records.clear()
        self._sizes.clear()
        self._training_seconds = self._waiting_seconds = 0.0
        return logs

    def _names(self) -> list[str]:
        return sorted({name for record in self._records for name in record.components})

    def _stacked(self) -> torch.Tensor | None:
        """(micro-batches, parts) of the losses in this interval; a part that a micro-batch lacks counts as zero."""
        if not self._records:
            return None
        zero = torch.zeros((), device=self.accelerator.device)
        names = self._names()
        return torch.stack(
            [torch.stack([record.components.get(name, zero) for name in names]) for record in self._records]
        )

    def _check(self, losses: torch.Tensor | None) -> None:
        if losses is None:
            return
        bad_anywhere = self.accelerator.reduce((~losses.isfinite().all()).float(), reduction="sum")
        if not bad_anywhere.item():
            return
        found = []
        for record in self._records:
            parts = {name: value.item() for name, value in record.components.items() if not value.isfinite()}
            if parts:
                text = ", ".join(f"{name} = {value}" for name, value in parts.items())
                found = [(record.step, f"step {record.step} ({text}; rows {', '.join(record.ids)})")]
                break
        _, first = min(gather_object(found))
        raise NonFiniteLossError(
            f"{first}: the loss is not finite; training stops and saves nothing more; "
            "look at these rows, lower --learning_rate, and resume with --resume_from_checkpoint"
        )

    def _throughput(self) -> dict[str, float]:
        seconds = self._training_seconds
        if not self._sizes or seconds <= 0:
            return {}
        sums = torch.tensor(
            [
                float(sum(size.samples for size in self._sizes)),
                float(sum(size.tokens for size in self._sizes)),
                sum(self.cost.flops(size) for size in self._sizes),
            ],
            device=self.accelerator.device,
            dtype=torch.float32 if self.accelerator.device.type == "mps" else torch.float64,
        )
        samples, tokens, flops = self.accelerator.reduce(sums, reduction="sum").tolist()
        logs = {
            "samples_per_second": samples / seconds,
            "tokens_per_second": tokens / seconds,
            "data_wait_share": self._waiting_seconds / seconds,
        }
        peak = peak_flops(self.accelerator.device)
        if peak is not None:
            logs["mfu"] = flops / seconds / (peak * self.accelerator.num_processes)
        return logs | peak_memory(self.accelerator.device)


def peak_memory(device: torch.device) -> dict[str, float]:
    """Peak memory of training in GiB: of the device, or of the process on a CPU."""
    if device.type == "cuda":
        return {"peak_memory_gib": torch.cuda.max_memory_allocated(device) / 2**30}
    import resource  # not on Windows, where training on a CPU goes without this figure

    return {"peak_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}
