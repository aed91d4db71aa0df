"""Checkpoints of any form, read one tensor at a time.

A checkpoint is a file or a folder of files, in safetensors or in torch's format. Torch's format is a pickle: it is only
read with ``weights_only=True``, which runs no code. Files are mapped into memory, one at a time, so that reading takes
the memory of one file at most.
"""

import json
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from vividmed.errors import VividMedError
from vividmed.models.configuration import one_line

INDEX_FILES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
TORCH_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")
_NOT_WEIGHTS = ("training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "scheduler.bin")
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class CheckpointReader:
    """Tensors of a checkpoint by name.

    Args:
        place: a file, or a folder with ``model.safetensors.index.json``, ``pytorch_model.bin.index.json`` or weights
            without an index. A file in torch's format may contain the tensors under ``state_dict``, as those of
            Lightning do.

    Attributes:
        shapes: for each name a tensor without memory, of the shape and dtype of the stored one.

    Raises:
        VividMedError: a file is missing, damaged, or contains anything but plain data.
    """

    def __init__(self, place: str | Path):
        self.place = Path(place)
        self._files = _files_of(self.place)
        self._open: tuple[Path, Any] | None = None
        self._file_of: dict[str, Path] = {}
        self.shapes: dict[str, torch.Tensor] = {}
        stated = _index_of(self.place)
        for path in self._files:
            for name, shape in self._scan(path):
                if name in self._file_of:
                    raise VividMedError(
                        f"{path}: {name} is also in {self._file_of[name].name}; keep one of the two files"
                    )
                self._file_of[name], self.shapes[name] = path, shape
        lost = sorted(name for name, file in (stated or {}).items() if self._file_of.get(name) != file)
        if lost:
            raise VividMedError(
                f"{self.place}: {(stated or {})[lost[0]].name} lacks {lost[0]}, which the index promises "
                f"({len(lost)} in all); download the checkpoint again"
            )
        self.close()

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __contains__(self, name: str) -> bool:
        return name in self.shapes

    @property
    def files(self) -> list[Path]:
        """The files that are read."""
        return list(self._files)

    def position(self, name: str) -> int:
        """Rank of the file that contains a tensor; reading in this order opens each file once."""
        return self._files.index(self._file_of[name])

    def read(self, name: str) -> torch.Tensor:
        """Read a tensor; it may share the memory of its file until :meth:`close`, and must not be written to.

        Raises:
            VividMedError: the file is damaged.
        """
        content = self._content(self._file_of[name])
        try:
            return content[name] if isinstance(content, Mapping) else content.get_tensor(name)
        except (SafetensorError, RuntimeError, OSError) as error:
            raise _unreadable(self._file_of[name], error) from error

    def close(self) -> None:
        """Let go of the file that is open."""
        self._open = None

    def _content(self, path: Path) -> Any:
        if self._open is None or self._open[0] != path:
            self._open = None  # before the next is opened
            self._open = (path, _open_file(path))
        return self._open[1]

    def _scan(self, path: Path) -> Iterator[tuple[str, torch.Tensor]]:
        content = self._content(path)
        if isinstance(content, Mapping):
            for name, tensor in content.items():
                yield name, torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
            return
        for name in content.keys():  # noqa: SIM118
            part = content.get_slice(name)
            if part.get_dtype() not in _DTYPES:
                raise VividMedError(
                    f"{path}: {name} is of type {part.get_dtype()}, which is a quantised weight; give the checkpoint "
                    "that is not quantised"
                )
            yield name, torch.empty(part.get_shape(), dtype=_DTYPES[part.get_dtype()], device="meta")


def _files_of(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise VividMedError(f"{place}: no such file or folder; give the folder or file of a checkpoint")
    stated = _index_of(place)
    if stated is not None:
        files = sorted(set(stated.values()))
        missing = [path.name for path in files if not path.is_file()]
        if missing:
            raise VividMedError(
                f"{place}: {missing[0]} is missing, {len(missing)} of {len(files)} files that the index names; "
                "download the checkpoint again"
            )
        return files
    found = sorted(place.glob("*.safetensors"))
    if not found:
        paths = (path for suffix in TORCH_SUFFIXES for path in place.glob(f"*{suffix}"))
        found = sorted(path for path in paths if path.name not in _NOT_WEIGHTS)
    if not found:
        raise VividMedError(
            f"{place}: contains no weights (*.safetensors, *.bin, *.pt, *.pth or *.ckpt); give the folder of a "
            "checkpoint"
        )
    return found


def _index_of(place: Path) -> dict[str, Path] | None:
    """The file of each tensor as the index states it; None without an index."""
    path = next((place / name for name in INDEX_FILES if (place / name).is_file()), None)
    if path is None:
        return None
    try:
        weight_map = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        files = {str(name): place / str(file) for name, file in weight_map.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise VividMedError(
            f"{path}: is not an index of weights ({one_line(error)}); download it again"
        ) from error
    if any(file.parent != place for file in files.values()):
        raise VividMedError(
            f"{path}: names files outside its folder; use an index from a source that you trust"
        )
    return files


def _open_file(path: Path) -> Any:
    """Open a file without reading its tensors."""
    if path.suffix == ".safetensors":
        try:
            return safe_open(path, framework="pt")
        except (SafetensorError, OSError) as error:
            raise _unreadable(path, error) from error
    try:
        content = _load_pickle(path)
    except pickle.UnpicklingError as error:
        reason = one_line(error).partition("Please file an issue")[0]
        raise VividMedError(
            f"{path}: contains more than plain tensors, and what else it contains could run code, so it is not read "
            f"({reason[:160]}); save its state_dict alone with torch.save or as safetensors"
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, AttributeError) as error:
        raise _unreadable(path, error) from error
    for key in ("state_dict", "model_state_dict", "module"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    tensors = {}
    if isinstance(content, Mapping):
        tensors = {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise VividMedError(f"{path}: contains no tensors by name; give a file with a state_dict")
    return tensors


def _load_pickle(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError as error:
        if "mmap can only be used" not in str(error):
            raise
        # Files of torch before 1.6 cannot be mapped.
        return torch.load(path, map_location="cpu", weights_only=True)


def _unreadable(path: Path, error: Exception) -> VividMedError:
    return VividMedError(f"{path}: cannot be read ({one_line(error)[:200]}); download or save it again")
