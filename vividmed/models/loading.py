"""Loading of checkpoints that refuses what would silently give a broken model."""

from collections.abc import Iterable
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn
from transformers.modeling_utils import PreTrainedModel

from vividmed.errors import VividMedError

# What transformers and torch raise while they build a model from a configuration of any content.
_UNBUILDABLE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RuntimeError,
    StrictDataclassError,
    TypeError,
    ValueError,
)


class CheckedPreTrainedModel(PreTrainedModel):
    """A pre-trained model that only loads complete checkpoints with finite weights."""

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: Any,
        *model_args: Any,
        check_weights: bool = True,
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
            output_loading_info: return the library's report along with the model.
            **kwargs: arguments of the library's method.

        Raises:
            VividMedError: config.json or the weights cannot be read, no model can be built from config.json, or the
                weights fail the check.
        """
        shapes_may_differ = kwargs.pop("ignore_mismatched_sizes", not check_weights)
        source = str(pretrained_model_name_or_path)
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
                f"{source}: the weights cannot be read ({_one_line(error)}); download or save them again"
            ) from error
        except OSError as error:
            if "valid JSON" not in str(error):
                raise
            raise VividMedError(
                f"{source}: config.json is not valid JSON; download or save it again"
            ) from error
        except (VividMedError, torch.OutOfMemoryError):
            raise
        except _UNBUILDABLE as error:
            if "meta device context" in str(error):  # the caller's mistake, which the library explains
                raise
            raise VividMedError(
                f"{source}: no model can be built from config.json ({_one_line(error)}); correct it, or use the one that "
                "belongs to the weights"
            ) from error
        if check_weights:
            mismatched = {name for name, *_ in report["mismatched_keys"]}
            check_complete(source, set(report["missing_keys"]) - mismatched)
            if mismatched and not shapes_may_differ:
                raise VividMedError(
                    f"{source}: {len(mismatched)} tensors have other shapes than config.json asks for "
                    f"({_first(mismatched)}); the configuration does not belong to these weights"
                )
            check_finite(source, model)
        return (model, report) if output_loading_info else model


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


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return "".join(character for character in text if character.isprintable())[:300]
