"""Files of weights that the user has: found or named in one line, read safely, and identified by their hash."""

import hashlib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeVar

import torch
from torch import nn

from vividmed.errors import VividMedError

T = TypeVar("T")
# Buffers that older versions of transformers stored and newer ones compute.
_IGNORED_ENDINGS = ("position_ids", "token_type_ids")


def weight_file(metric: str, folder: str | Path, name: str, *, remedy: str) -> Path:
    """Path of a file that a metric needs.

    Args:
        metric: name of the metric, for the error.
        folder: where the user says that it is.
        name: name of the file.
        remedy: where the file comes from.

    Raises:
        VividMedError: it is not there.
    """
    path = Path(folder) / name
    if not path.exists():
        raise VividMedError(f"{metric}={folder}: {name} is missing; {remedy}")
    return path


@cache
def file_hash(path: Path) -> str:
    """First 16 hexadecimal digits of the SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()[:16]


def read_weights(path: Path) -> Mapping[str, Any]:
    """Content of a PyTorch file, read without running code.

    Raises:
        VividMedError: it is damaged, or contains more than tensors and plain values.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:  # PyTorch's message recommends to run the code in the file
        raise VividMedError(
            f"{path}: cannot be read as PyTorch weights (it is another file, or needs code to be run); download the published "
            "file again"
        ) from error
    except Exception as error:  # of many kinds, by the place of the damage
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise VividMedError(
            f"{path}: cannot be read as PyTorch weights ({reason}); download the published file again"
        ) from error
    if not isinstance(content, Mapping):
        raise VividMedError(
            f"{path}: contains a {type(content).__name__} instead of weights by name; download the file again"
        )
    return content


def fill(model: nn.Module, tensors: Mapping[Any, Any], path: Path) -> None:
    """Load weights that must be exactly those of the model.

    Raises:
        VividMedError: a tensor is missing, left over, or of another shape.
    """
    wanted = model.state_dict()
    given = {str(name): value for name, value in tensors.items() if not str(name).endswith(_IGNORED_ENDINGS)}
    needed = {name for name in wanted if not name.endswith(_IGNORED_ENDINGS)}
    wrong = sorted(needed ^ given.keys())
    wrong += [
        name
        for name in sorted(needed & given.keys())
        if wanted[name].shape != getattr(given[name], "shape", None)
    ]
    if wrong:
        raise VividMedError(
            f"{path}: its weights do not fit the model ({len(wrong)} differ, such as {wrong[0]}); use the published file "
            "with the configuration of its encoder"
        )
    model.load_state_dict(given, strict=False)


def from_folder(metric: str, folder: str | Path, load: Callable[..., T]) -> T:
    """A configuration, tokenizer or model of transformers from a local folder.

    Args:
        metric: name of the metric, for the error.
        folder: local folder.
        load: a ``from_pretrained``, or what makes a network of a configuration.

    Raises:
        VividMedError: the folder does not have it.
    """
    if not Path(folder).is_dir():
        raise VividMedError(f"{metric}={folder}: is not a folder; download the model and give its folder")
    try:
        return load(str(folder), local_files_only=True)
    except Exception as error:  # the readers' own, of many kinds
        reason = " ".join(str(error).split())[:200]
        raise VividMedError(
            f"{metric}={folder}: cannot be loaded ({reason}); download the model with its tokenizer again"
        ) from error


def load_tokenizer(metric: str, folder: str | Path, load: Callable[..., T], *, size: int) -> T:
    """A tokenizer from a local folder that the encoder can take words from.

    Args:
        metric: name of the metric, for the error.
        folder: local folder.
        load: a ``from_pretrained``.
        size: number of tokens that the encoder knows.

    Raises:
        VividMedError: the folder does not have it, or it is of another encoder.
    """

    def load_usable(place: str, **options: Any) -> Any:
        tokenizer: Any = load(place, **options)
        tokenizer("report")  # one without a token for unknown words fails only here
        return tokenizer

    tokenizer: Any = from_folder(metric, folder, load_usable)
    if len(tokenizer) > size:
        raise VividMedError(
            f"{metric}={folder}: the tokenizer has {len(tokenizer)} tokens, but the encoder knows {size}; put the "
            "tokenizer of this encoder there"
        )
    return tokenizer
