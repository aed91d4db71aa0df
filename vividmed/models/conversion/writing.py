"""Checkpoints written one tensor at a time, into shards of safetensors that a killed run can continue.

The library writes a file from tensors that are all in memory. Here the shapes of all tensors are known before the first
is made, so a file's header is written first and each tensor is made, written and forgotten.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vividmed.errors import VividMedError
from vividmed.files import sync_folder, write_atomically

SHARD_BYTES = 4_000_000_000
PROGRESS_FILE = "progress.json"
_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_CHUNK = 1 << 24


@dataclass(frozen=True)
class Shard:
    """A file to write: its name and its tensors in order."""

    file: str
    names: tuple[str, ...]


def plan_shards(
    shapes: Mapping[str, torch.Tensor], shard_bytes: int = SHARD_BYTES, *, weights_name: str = "model"
) -> list[Shard]:
    """Distribute tensors over files, in the order given.

    Args:
        shapes: for each name a tensor of the shape and dtype to write; its values are not read.
        shard_bytes: largest file, unless a single tensor is larger.
        weights_name: name of the files, without number and suffix.
    """
    groups: list[list[str]] = [[]]
    size = 0
    for name, tensor in shapes.items():
        if groups[-1] and size + tensor.nbytes > shard_bytes:
            groups.append([])
            size = 0
        groups[-1].append(name)
        size += tensor.nbytes
    files = [f"{weights_name}.safetensors"]
    if len(groups) > 1:
        files = [f"{weights_name}-{i + 1:05}-of-{len(groups):05}.safetensors" for i in range(len(groups))]
    return [Shard(file, tuple(group)) for file, group in zip(files, groups, strict=True)]


def write_shards(
    folder: Path,
    shapes: Mapping[str, torch.Tensor],
    make: Callable[[str], torch.Tensor],
    *,
    fingerprint: Mapping[str, Any],
    shard_bytes: int = SHARD_BYTES,
    weights_name: str = "model",
    on_shard: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, dict[str, Any]]:
    """Write the weights of a model; what an interrupted call with the same fingerprint wrote is checked and kept.

    Args:
        folder: folder to write into, which remembers finished files in ``progress.json``.
        shapes: as for :func:`plan_shards`.
        make: returns the tensor of a name.
        fingerprint: plain data that says what the weights are made of and how.
        shard_bytes: as for :func:`plan_shards`.
        weights_name: as for :func:`plan_shards`.
        on_shard: called after each file with the number of finished files and of all.

    Returns:
        Size and SHA-256 sum of each file by name.

    Raises:
        VividMedError: a file cannot be written, or a tensor is not finite or of another shape than promised.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shards = plan_shards(shapes, shard_bytes, weights_name=weights_name)
    plan = json.loads(json.dumps({"fingerprint": fingerprint, "shards": [list(s.names) for s in shards]}))
    finished = _finished_files(folder, plan)
    for index, shard in enumerate(shards):
        if shard.file not in finished:
            finished[shard.file] = _write_file(folder / shard.file, shard.names, shapes, make)
            content = json.dumps({"plan": plan, "files": finished})
            write_atomically(folder / PROGRESS_FILE, content)
        on_shard(index + 1, len(shards))
    if len(shards) > 1:
        weight_map = {name: shard.file for shard in shards for name in shard.names}
        total = sum(tensor.nbytes for tensor in shapes.values())
        index_file = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        write_atomically(
            folder / f"{weights_name}.safetensors.index.json", json.dumps(index_file, indent=1) + "\n"
        )
    (folder / PROGRESS_FILE).unlink(missing_ok=True)
    return finished


def file_digest(path: Path) -> dict[str, Any]:
    """Size and SHA-256 sum of a file."""
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _finished_files(folder: Path, plan: Any) -> dict[str, dict[str, Any]]:
    """The files of an interrupted call with the same plan that are as they were written."""
    try:
        progress = json.loads((folder / PROGRESS_FILE).read_text(encoding="utf-8"))
        files = progress["files"] if progress["plan"] == plan else {}
    except (OSError, ValueError, KeyError, TypeError):
        files = {}
    kept = {}
    for name, state in files.items():
        path = folder / name
        if path.is_file() and path.stat().st_size == state["bytes"] and file_digest(path) == state:
            kept[name] = state
    for path in folder.glob("*.safetensors"):
        if path.name not in kept:
            path.unlink()
    return kept


def _write_file(
    path: Path,
    names: Sequence[str],
    shapes: Mapping[str, torch.Tensor],
    make: Callable[[str], torch.Tensor],
) -> dict[str, Any]:
    # Wide types first, so that every tensor is aligned.
    ordered = sorted(names, key=lambda name: -shapes[name].element_size())
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name in ordered:
        tensor = shapes[name]
        end = offset + tensor.nbytes
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    temporary = path.with_name(f".{path.name}.partial")
    digest = hashlib.sha256()
    size = 0
    try:
        with temporary.open("wb") as file:

            def put(data: bytes | memoryview) -> None:
                nonlocal size
                for start in range(0, len(data), _CHUNK):
                    file.write(data[start : start + _CHUNK])
                    digest.update(data[start : start + _CHUNK])
                size += len(data)

            put(len(text).to_bytes(8, "little") + text)
            for name in ordered:
                put(_bytes_of(name, make(name), shapes[name]))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise VividMedError(
            f"{path}: cannot be written ({error.strerror or error}); make room or choose another folder, then run the "
            "command again: finished files are kept"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return {"bytes": size, "sha256": digest.hexdigest()}


def _bytes_of(name: str, tensor: torch.Tensor, promised: torch.Tensor) -> memoryview:
    tensor = tensor.detach()
    if tensor.shape != promised.shape:
        raise VividMedError(
            f"{name}: has shape {tuple(tensor.shape)} where {tuple(promised.shape)} is needed; "
            "the files changed while they were read"
        )
    tensor = tensor.to(promised.dtype).contiguous().reshape(-1)
    if tensor.is_floating_point() and not is_finite(tensor):
        raise VividMedError(
            f"{name}: contains NaN or infinite values, or values too large for {promised.dtype}; use another "
            "checkpoint or a wider --dtype"
        )
    return tensor.view(torch.uint8).numpy().data


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether all values are finite, without a copy of the tensor."""
    # The sum of finite values may overflow; they are then looked at one by one.
    return bool(tensor.sum(dtype=torch.float32).isfinite()) or bool(tensor.isfinite().all())
