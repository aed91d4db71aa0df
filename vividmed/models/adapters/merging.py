"""Merging of a low-rank adapter into a checkpoint, tensor by tensor: no more than one shard is ever in memory.

It needs neither PEFT nor the model, only the names that PEFT saves: ``X.lora_A.weight`` and ``X.lora_B.weight`` change
``X.weight``, ``X.lora_magnitude_vector`` rescales it (DoRA), ``X.token_adapter.trainable_tokens_delta`` replaces some
of its rows, and every other name replaces the tensor that it names.
"""

import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from vividmed.errors import VividMedError
from vividmed.models.adapters.settings import ROUNDING
from vividmed.models.configuration import one_line

WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = f"{WEIGHTS}.index.json"
SHARD_BYTES = 5 * 10**9
_PREFIX = "base_model.model."
_SUFFIXES = (
    ".lora_A.weight",
    ".lora_B.weight",
    ".lora_magnitude_vector",
    ".lora_magnitude_vector.weight",
    ".lora_embedding_A",
    ".lora_embedding_B",
    ".token_adapter.trainable_tokens_delta",
)
# Settings of PEFT that change the product in ways that are not computed here.
_UNSUPPORTED = (
    "lora_bias",
    "use_qalora",
    "use_bdlora",
    "arrow_config",
    "alora_invocation_tokens",
    "megatron_config",
)

Read = Callable[[str], torch.Tensor]


class AdapterMerger:
    """Applies an adapter to the tensors of its base model, one at a time.

    Args:
        config: content of ``adapter_config.json``.
        names: names of the adapter's tensors, with or without PEFT's prefix ``base_model.model.``.
        read: gives a tensor by its name in ``names``.
        source: name of the adapter, for errors.

    Raises:
        VividMedError: the adapter is not a LoRA adapter, or uses a variant that cannot be merged.
    """

    def __init__(
        self, config: Mapping[str, Any], names: Collection[str], read: Read, *, source: str = "adapter"
    ):
        self.source = source
        self._config = config
        self._read = read
        self._updates: dict[str, dict[str, str]] = {}
        self._whole: dict[str, str] = {}
        self._applied: set[str] = set()
        if config.get("peft_type") != "LORA":
            raise VividMedError(
                f"{source}: an adapter of type {config.get('peft_type')!r}; only LoRA adapters can be merged"
            )
        if used := [name for name in _UNSUPPORTED if config.get(name)]:
            raise VividMedError(
                f"{source}: uses {', '.join(used)}, which cannot be merged tensor by tensor; load the adapter and call "
                "merge_and_unload()"
            )
        for full_name in names:
            name = full_name.removeprefix(_PREFIX)
            if name == ROUNDING:
                continue
            suffix = next((each for each in _SUFFIXES if name.endswith(each)), None)
            if suffix is None:
                self._whole[name] = full_name
            else:
                part = suffix.split(".")[1] if suffix.startswith(".lora") else "rows"
                self._updates.setdefault(f"{name.removesuffix(suffix)}.weight", {})[part] = full_name

    @property
    def unused(self) -> set[str]:
        """Names in the base model that the adapter changes but :meth:`merged` has not been asked for."""
        return (self._updates.keys() | self._whole.keys()) - self._applied

    def separates(self, name: str, twin: str) -> bool:
        """Whether the adapter changes a tensor of the base model but not its twin, with which it shares memory.

        Rows of tokens that are trained change both, as PEFT ties them; everything else changes only what it names.
        """
        parts = self._updates.get(name, {})
        changes = name in self._whole or bool(parts.keys() - {"rows"})
        return changes and twin not in self._whole and not self._config.get("ensure_weight_tying")

    def whole(self, name: str) -> torch.Tensor | None:
        """A tensor that the adapter contains whole, whether the base model has it or not."""
        if name not in self._whole:
            return None
        self._applied.add(name)
        return self._checked(self._whole[name])

    @torch.no_grad()
    def merged(self, name: str, tensor: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
        """The tensor of the merged model.

        The product is computed in float32 and rounded once.

        Args:
            name: its name in the base model.
            tensor: its value in the base model, in floating point.
            dtype: precision of the result; by default that of ``tensor``.

        Raises:
            VividMedError: shapes do not fit, or a tensor of the adapter has NaN or infinite values.
        """
        dtype = dtype or tensor.dtype
        whole = self.whole(name)
        if whole is not None:
            self._check_shape(name, whole.shape, tensor.shape)
            return whole.to(dtype)
        parts = self._updates.get(name)
        if parts is None:
            return tensor.to(dtype)
        self._applied.add(name)
        if not tensor.is_floating_point():
            raise VividMedError(
                f"{name}: is quantised in the base model; merge into the unquantised base model"
            )
        module = name.removesuffix(".weight")
        result = tensor.float()
        if "lora_A" in parts or "lora_embedding_A" in parts:
            result = self._with_product(name, module, parts, result)
        if "rows" in parts:
            result = self._with_rows(name, module, parts["rows"], result)
        return result.to(dtype)

    def _with_product(
        self, name: str, module: str, parts: Mapping[str, str], weight: torch.Tensor
    ) -> torch.Tensor:
        kind = "lora_embedding_" if "lora_embedding_A" in parts else "lora_"
        missing = [side for side in "AB" if f"{kind}{side}" not in parts]
        if missing:
            raise VividMedError(
                f"{self.source}: lacks {kind}{missing[0]} of {module}; save or download it again"
            )
        down, up = (self._checked(parts[f"{kind}{side}"]).float() for side in "AB")
        product = up @ down
        if kind == "lora_embedding_" or self._config.get("fan_in_fan_out"):
            product = product.T
        self._check_shape(name, product.shape, weight.shape)
        changed = weight + self._scale(module, len(down)) * product
        if "lora_magnitude_vector" in parts:
            magnitude = self._checked(parts["lora_magnitude_vector"]).float().flatten()
            changed = changed * (magnitude / changed.norm(dim=1))[:, None]
        return changed

    def _with_rows(self, name: str, module: str, full_name: str, weight: torch.Tensor) -> torch.Tensor:
        rows = self._checked(full_name).float()
        indices = self._config.get("trainable_token_indices") or {}
        if isinstance(indices, Mapping):
            indices = next((value for key, value in indices.items() if _ends_with(module, key)), [])
        if len(indices) != len(rows) or max(indices, default=-1) >= len(weight):
            raise VividMedError(
                f"{self.source}: {full_name} has {len(rows)} rows for {len(indices)} token indices of {name}, which has "
                f"{len(weight)} rows; name the base model that the adapter was trained on"
            )
        return weight.index_copy(0, torch.tensor(indices), rows)

    def _scale(self, module: str, rank: int) -> float:
        alpha = _by_pattern(
            self._config.get("alpha_pattern") or {}, module, self._config.get("lora_alpha", 8)
        )
        return alpha / (math.sqrt(rank) if self._config.get("use_rslora") else rank)

    def _checked(self, full_name: str) -> torch.Tensor:
        tensor = self._read(full_name)
        if not tensor.isfinite().all():
            raise VividMedError(
                f"{self.source}: {full_name} contains NaN or infinite values; use another checkpoint"
            )
        return tensor

    def _check_shape(self, name: str, found: torch.Size, wanted: torch.Size) -> None:
        if found != wanted:
            raise VividMedError(
                f"{self.source}: the adapter does not fit the base model: its change of {name} has shape {tuple(found)}, "
                f"not {tuple(wanted)}; name the base model that it was trained on"
            )


def merge_checkpoint(
    base: Path,
    merger: AdapterMerger,
    output: Path,
    *,
    dtype: torch.dtype | None = None,
    keep_float32: Collection[str] = (),
    new: Collection[str] = (),
    tied: Mapping[str, str] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> set[str]:
    """Write the weights of a merged model.

    Args:
        base: folder of the base model, with ``model.safetensors`` or an index of shards.
        merger: the adapter.
        output: folder to write into.
        dtype: precision of the merged weights; by default each tensor keeps its own.
        keep_float32: names of modules that stay in float32 whatever ``dtype`` is.
        new: names that the base model's files may lack because the adapter contains them whole, such as the weight of
            a head that was tied to the embeddings.
        tied: names of tensors that share memory with another one, which is stored instead. One that the adapter
            separates is written with the value of the base model.
        shard_bytes: largest size of a file; a larger tensor has a file of its own.

    Returns:
        The names of all tensors written.

    Raises:
        VividMedError: the base model cannot be read, the adapter does not fit it, or changes tensors that it lacks.
    """
    writer = _ShardWriter(output, shard_bytes)
    kept = tuple(f"{module}." for module in keep_float32)
    twins = {stored: twin for twin, stored in (tied or {}).items()}

    def stored_as(name: str, tensor: torch.Tensor) -> torch.dtype:
        converts = dtype is not None and tensor.is_floating_point() and not name.startswith(kept)
        return dtype if converts else tensor.dtype  # type: ignore[return-value]

    for name, tensor in read_tensors(base):
        names = [name]
        if name in twins and merger.separates(name, twins[name]):
            names.insert(0, twins[name])
        for each in names:
            writer.add(each, merger.merged(each, tensor, stored_as(each, tensor)))
    for name in sorted(merger.unused & set(new)):
        if (whole := merger.whole(name)) is not None:
            writer.add(name, whole.to(stored_as(name, whole)))
    if unused := sorted(merger.unused):
        raise VividMedError(
            f"{merger.source}: the base model has no place for {len(unused)} tensors of the adapter ({unused[0]}); name "
            "the base model that the adapter was trained on, with its segmenters"
        )
    return writer.close()


def read_tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors of a checkpoint, one after the other, without loading a file whole.

    Raises:
        VividMedError: there are no safetensors files, or one of them cannot be read or lacks a tensor of the index.
    """
    for path, names in checkpoint_files(folder).items():
        try:
            with safe_open(path, framework="pt") as file:
                for name in sorted(names or file.keys()):
                    yield name, file.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise VividMedError(
                f"{path}: cannot be read ({one_line(error)}); save or download the model again"
            ) from error


def checkpoint_files(folder: Path) -> dict[Path, list[str] | None]:
    """Weight files of a checkpoint with the tensors that the index expects in each; None where there is no index.

    Raises:
        VividMedError: there are none, or the index is damaged.
    """
    index = folder / WEIGHTS_INDEX
    if not index.is_file():
        if not (folder / WEIGHTS).is_file():
            raise VividMedError(
                f"{folder}: contains neither {WEIGHTS} nor {WEIGHTS_INDEX}; use a complete checkpoint"
            )
        return {folder / WEIGHTS: None}
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files: dict[Path, list[str] | None] = {
            folder / str(file): [] for file in sorted(set(places.values()))
        }
        for name, file in places.items():
            names = files[folder / file]
            if names is not None:
                names.append(name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise VividMedError(
            f"{index}: cannot be read ({one_line(error)}); download the model again"
        ) from error
    if outside := [path for path in files if path.parent != folder]:
        raise VividMedError(
            f"{index}: names a file outside its folder ({outside[0]}); download the model again"
        )
    return files


class _ShardWriter:
    """Collects tensors until they fill a file; numbers the files once their count is known."""

    def __init__(self, folder: Path, shard_bytes: int):
        self.folder, self.shard_bytes = folder, shard_bytes
        self._tensors: dict[str, torch.Tensor] = {}
        self._bytes = self._total = 0
        self._shards: list[list[str]] = []

    def add(self, name: str, tensor: torch.Tensor) -> None:
        if self._tensors and self._bytes + tensor.nbytes > self.shard_bytes:
            self._flush()
        self._tensors[name] = tensor.contiguous()
        self._bytes += tensor.nbytes
        self._total += tensor.nbytes

    def close(self) -> set[str]:
        self._flush()
        count = len(self._shards)
        files = (
            [WEIGHTS]
            if count == 1
            else [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
        )
        for number, file in enumerate(files):
            self._part(number).replace(self.folder / file)
        if count > 1:
            places = {name: file for names, file in zip(self._shards, files, strict=True) for name in names}
            index = {"metadata": {"total_size": self._total}, "weight_map": dict(sorted(places.items()))}
            (self.folder / WEIGHTS_INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        return {name for names in self._shards for name in names}

    def _flush(self) -> None:
        try:
            save_file(self._tensors, self._part(len(self._shards)), metadata={"format": "pt"})
        except (OSError, SafetensorError) as error:
            raise VividMedError(
                f"{self.folder}: cannot be written ({one_line(error)[:200]}); make room or choose another folder, then run "
                "the command again"
            ) from error
        self._shards.append(list(self._tensors))
        self._tensors, self._bytes = {}, 0

    def _part(self, number: int) -> Path:
        return self.folder / f".shard-{number}.partial"


def _ends_with(module: str, name: str) -> bool:
    return module == name or module.endswith(f".{name}")


def _by_pattern(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    """Value of the first pattern that matches the end of a module's name, as PEFT matches them."""
    return next(
        (value for pattern, value in patterns.items() if re.match(rf"(.*\.)?({pattern})$", module)), default
    )
