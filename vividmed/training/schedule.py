"""Learning rates that change only every few steps."""

from collections.abc import Callable
from typing import Any

from torch.optim.lr_scheduler import LambdaLR

from vividmed.errors import VividMedError


def keep_rate_between_updates(scheduler: Any, steps: int) -> Any:
    """Make a scheduler update the learning rate only at multiples of ``steps``.

    Between two updates the rate is that of the schedule at the last one. With a warm-up from zero, the first ``steps``
    steps therefore have a rate of zero.

    Args:
        scheduler: of the Trainer; changed in place.
        steps: number of steps between two updates; 1 changes nothing.

    Raises:
        VividMedError: the schedule depends on more than the step.
    """
    if steps == 1:
        return scheduler
    if not isinstance(scheduler, LambdaLR):
        raise VividMedError(
            f"--lr_update_steps {steps}: {type(scheduler).__name__} does not depend on the step only; choose another "
            "--lr_scheduler_type, such as cosine"
        )
    # Plain functions, because a scheduler's state contains the attributes of other callables.
    scheduler.lr_lambdas = [_kept(factor, steps) for factor in scheduler.lr_lambdas]
    return scheduler


def _kept(factor: Callable[[int], float], steps: int) -> Callable[[int], float]:
    return lambda step: factor(step // steps * steps)
