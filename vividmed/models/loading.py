"""Loading of checkpoints that refuses what would silently give a broken model."""

from collections.abc import Callable, Collection, Iterable
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers.modeling_utils import LoadStateDictInfo, PreTrainedModel

from vividmed.errors import VividMedError
from vividmed.models.configuration import UNBUILDABLE, one_line, unbuildable

_Check = Callable[[PreTrainedModel, LoadStateDictInfo], None]

_check_before_initialising: ContextVar[_Check | None] = ContextVar("check_before_initialising", default=None)


class CheckedPreTrainedModel(PreTrainedModel):
    """A pre-trained model that only loads complete checkpoints with finite weights."""

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: Any,
        *model_args: Any,
        check_weights: bool = True,
        new_modules: Collection[str] = (),
        output_loading_info: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Load a checkpoint as :meth:`transformers.PreTrainedModel.from_pretrained` does, then check it.

        Args:
            pretrained_model_name_or_path: folder or Hub id.
            *model_args: further arguments of the constructor.
            check_weights: refuse checkpoints in which tensors are missing, have another shape than the
                configuration asks for, or contain NaN or infinite values. With False, missing tensors are
                initialised at random.
            new_modules: names of modules of the model that the checkpoint may lack or have in other shapes; they are
                initialised at random.
            output_loading_info: return the library's report along with the model.
            **kwargs: arguments of the library's method.

        Raises:
            VividMedError: config.json or the weights cannot be read, no model can be built from config.json, or the
                weights fail the check.
        """
        shapes_may_differ = kwargs.pop("ignore_mismatched_sizes", not check_weights)
        source = str(pretrained_model_name_or_path)
        check = partial(
            _check_tensors, source=source, new_modules=tuple(new_modules), shapes_may_differ=shapes_may_differ
        )
        token = _check_before_initialising.set(check if check_weights else None)
        try:
            model, report = super().from_pretrained(
                pretrained_model_name_or_path,
                *model_args,
                # Differences are collected and named below, which the library only does in its log.
                ignore_mismatched_sizes=shapes_may_differ or check_weights,
                output_loading_info=True,
                **kwargs,
            )
        except SafetensorError as error:
            raise VividMedError(
                f"{source}: the weights cannot be read ({one_line(error)}); download or save them again"
            ) from error
        except (OSError, VividMedError, torch.OutOfMemoryError):
            raise
        except UNBUILDABLE as error:
            if "meta device context" in str(error):  # the caller's mistake, which the library explains
                raise
            raise unbuildable(error, source) from error
        finally:
            _check_before_initialising.reset(token)
        if check_weights:
            mismatched = {name for name, *_ in report["mismatched_keys"]}
            check_complete(source, _others(set(report["missing_keys"]) - mismatched, new_modules))
            check_finite(source, model)
        return (model, report) if output_loading_info else model

    @staticmethod
    def _finalize_model_loading(model: Any, load_config: Any, loading_info: LoadStateDictInfo) -> Any:
        """Check the names and shapes before the library gives memory to the tensors that it has not found.

        Until then they are on the meta device, so that a configuration of any size costs nothing.
        """
        if check := _check_before_initialising.get():
            check(model, loading_info)
        return PreTrainedModel._finalize_model_loading(model, load_config, loading_info)


def _check_tensors(
    model: PreTrainedModel,
    found: LoadStateDictInfo,
    *,
    source: str,
    new_modules: Collection[str],
    shapes_may_differ: bool,
) -> None:
    mismatched = {name for name, *_ in found.mismatched_keys}
    tied = {name for pair in model.all_tied_weights_keys.items() for name in pair}
    # Buffers are small, and their initialisation says more about those that are missing.
    parameters = {name for name, _ in model.named_parameters()}
    missing = (found.missing_keys & parameters) - mismatched - tied
    check_complete(source, _others(missing, new_modules))
    if not shapes_may_differ and (others := _others(mismatched, new_modules)):
        raise VividMedError(
            f"{source}: {len(others)} tensors have other shapes than config.json asks for "
            f"({_first(others)}); the configuration does not belong to these weights"
        )


def _others(names: Iterable[str], modules: Collection[str]) -> set[str]:
    """The names of tensors that are in none of the modules."""
    return {name for name in names if not name.startswith(tuple(f"{module}." for module in modules))}


def check_complete(source: str, missing: Iterable[str]) -> None:
    """Refuse a checkpoint that lacks tensors.

    Args:
        source: name of the checkpoint.
        missing: names of the tensors that it lacks.

    Raises:
        VividMedError: there are any.
    """
    if names := sorted(missing):
        raise VividMedError(
            f"{source}: {len(names)} tensors are missing ({_first(names)}); use a complete checkpoint, "
            "or pass check_weights=False to initialise them at random"
        )


def check_finite(source: str, model: nn.Module) -> None:
    """Refuse weights with NaN or infinite values.

    Args:
        source: name of the checkpoint.
        model: its floating-point parameters and buffers are checked, those that are not in memory excepted.

    Raises:
        VividMedError: a tensor is not finite everywhere.
    """
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    broken = [name for name, tensor in tensors.items() if not _is_finite(tensor)]
    if broken:
        raise VividMedError(
            f"{source}: {len(broken)} tensors contain NaN or infinite values ({_first(broken)}); "
            "use an earlier checkpoint, or pass check_weights=False to load them as they are"
        )


@torch.no_grad()
def _is_finite(tensor: torch.Tensor) -> bool:
    if not tensor.is_floating_point() or tensor.is_meta:
        return True
    # A sum takes no memory. It overflows only for values that no trained weight has, and is then looked into.
    return bool(tensor.sum(dtype=torch.float32).isfinite()) or bool(tensor.isfinite().all())


def _first(names: Iterable[str]) -> str:
    names = sorted(names)
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
