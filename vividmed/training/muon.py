"""Muon for the matrices of hidden layers, and AdamW for all other weights.

AdamW scales each number of an update by itself. Muon makes all directions of a matrix's update equally long, so that
directions that gradients rarely point to are learned as fast as the others (Jordan et al., "Muon: an optimizer for hidden
layers in neural networks", 2024). The update is scaled to the size of AdamW's, so that one learning rate and one weight
decay serve both (Liu et al., "Muon is scalable for LLM training", 2025, section 2.2).

``torch.optim.Muon`` computes in bfloat16, which takes ten times as long on CPUs without instructions for it, and leaves
all other weights to a second optimizer.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim.adamw import adamw
from torch.optim.optimizer import ParamsT

_MOMENTUM = 0.95
_STEPS = 5
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_SIZE_OF_ADAMW = 0.2
_EPSILON = 1e-7


class Muon(torch.optim.Optimizer):
    """Muon in the groups with ``muon: True``, and AdamW in all others.

    Args:
        params: groups of parameters. Those of a group with ``muon`` are matrices, held whole by each process.
        lr: learning rate.
        betas: decay rates of AdamW's moments.
        eps: added to AdamW's denominator.
        weight_decay: decoupled weight decay.

    Raises:
        ValueError: a parameter of a group with ``muon`` is not a matrix.
    """

    def __init__(
        self,
        params: ParamsT,
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "muon": False}
        )
        for group in self.param_groups:
            if group["muon"] and any(parameter.ndim != 2 for parameter in group["params"]):
                raise ValueError("muon: only matrices can be made orthogonal; leave other weights to AdamW")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Update all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            gradients = [parameter.grad for parameter in parameters]
            (self._muon if group["muon"] else self._adamw)(parameters, gradients, group)
        return loss

    def _muon(
        self, parameters: list[torch.Tensor], gradients: list[torch.Tensor], group: dict[str, Any]
    ) -> None:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            state = self.state[parameter]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
            momentum = state["momentum_buffer"].lerp_(gradient, 1 - _MOMENTUM)
            direction = orthogonal(gradient.lerp(momentum, _MOMENTUM))
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            size = _SIZE_OF_ADAMW * max(parameter.shape) ** 0.5
            parameter.add_(direction, alpha=-group["lr"] * size)

    def _adamw(
        self, parameters: list[torch.Tensor], gradients: list[torch.Tensor], group: dict[str, Any]
    ) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter] = {
                    "step": torch.zeros((), dtype=torch.float32),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }
        states = [self.state[parameter] for parameter in parameters]
        beta1, beta2 = group["betas"]
        adamw(
            parameters,
            gradients,
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            foreach=True,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """A matrix with the singular vectors of ``matrix`` and singular values of about 1 (0.7 to 1.2).

    Five iterations of Newton and Schulz with Jordan's coefficients. They run on the smaller Gram matrix, which takes half
    of the time for matrices that are not square.

    Args:
        matrix: (rows, columns), of any scale.

    Returns:
        (rows, columns) in the type of ``matrix``; zeros stay zeros.
    """
    is_tall = matrix.shape[0] > matrix.shape[1]
    values = (matrix.mT if is_tall else matrix).float()
    values = values / values.norm().clamp_min(_EPSILON)
    gram = values @ values.mT
    product = polynomial = _polynomial(gram)
    for _ in range(_STEPS - 1):
        gram = polynomial @ gram @ polynomial
        polynomial = _polynomial(gram)
        product = polynomial @ product
    values = product @ values
    return (values.mT if is_tall else values).to(matrix.dtype)


def _polynomial(gram: torch.Tensor) -> torch.Tensor:
    """The matrix polynomial of one iteration, (n, n), of the (n, n) Gram matrix."""
    first, third, fifth = _COEFFICIENTS
    polynomial = torch.addmm(gram, gram, gram, beta=third, alpha=fifth)
    polynomial.diagonal().add_(first)
    return polynomial
