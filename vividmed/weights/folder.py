"""A model folder with weights, configuration, processor, card, provenance and report, complete or not there at all."""

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import ModelCardData
from huggingface_hub.constants import ENDPOINT
from transformers import GenerationConfig

from vividmed.data.terms import (
    PROVENANCE_FILE,
    DatasetTerms,
    combine_terms,
    read_provenance,
    write_provenance,
)
from vividmed.errors import VividMedError
from vividmed.files import packaged_folder, sync_file, sync_folder, write_atomically
from vividmed.hub.base_model import find_base_model_id
from vividmed.hub.cards import fill_template, safe_terms
from vividmed.models.configuration_vividmed import VividMedConfig
from vividmed.models.conversion.building import PlannedModel
from vividmed.models.conversion.report import LoadReport
from vividmed.models.conversion.writing import SHARD_BYTES, file_digest, write_shards
from vividmed.processing.processing_vividmed import VividMedProcessor
from vividmed.version import __version__
from vividmed.weights.sources import display_name

REPORT_FILE = "conversion_report.json"
MANIFEST_FILE = "manifest.json"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_HUB_LICENCES = (
    "apache-2.0",
    "mit",
    "cc-by-4.0",
    "cc-by-nc-4.0",
    "cc-by-sa-4.0",
    "llama2",
    "llama3",
    "openrail",
)


@dataclass(frozen=True, kw_only=True)
class Part:
    """A checkpoint that a model is made from.

    Attributes:
        role: what it gives, such as "language model".
        place: as the user named it.
        path: where it lies.
        unlicensed: why its terms are unknown if no licence is given.
    """

    role: str
    place: str
    path: Path
    unlicensed: str = "no licence was given for these weights"

    def terms(self, licence: str | None) -> list[DatasetTerms]:
        """Terms of the weights: those of their provenance file, else the licence given, else unknown."""
        if self.path.is_dir() and (self.path / PROVENANCE_FILE).is_file():
            return read_provenance(self.path)
        name = f"{self.role} {display_name(self.place)}"
        if licence is None:
            return [DatasetTerms.unknown(name, self.unlicensed)]
        source = find_base_model_id(self.place)
        return [
            DatasetTerms(
                name=name,
                licence=licence,
                access="open",
                redistribute="yes",
                homepage="unknown" if source is None else f"{ENDPOINT}/{source}",
                citation="unknown",
            )
        ]

    def state(self) -> list[Any]:
        """Sizes and times of its files, which tell whether an interrupted conversion may continue."""
        files = [self.path] if self.path.is_file() else sorted(p for p in self.path.iterdir() if p.is_file())
        return [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in files]


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """What the card of a made model says.

    Attributes:
        summary: one paragraph on what the model is.
        advice: one paragraph on what to do with it.
        licence: licence given by the user.
        released: name of a card in ``model_cards/released`` whose facts are those of this model; None for none.
        tags: further tags of the Hub.
    """

    summary: str
    advice: str
    licence: str | None
    released: str | None = None
    tags: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Result:
    """A folder that was written.

    Attributes:
        folder: the folder.
        report: what became of each tensor.
        bytes: size of all weights.
    """

    folder: Path
    report: LoadReport
    bytes: int = field(default=0)


def check_output(folder: Path) -> None:
    """Refuse to write into a folder that has content.

    Raises:
        VividMedError: there is a file of that name, or a folder with files.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise VividMedError(f"--output {folder}: exists and is not empty; name a new folder")


def write_model_folder(
    output: Path,
    planned: PlannedModel,
    processor: VividMedProcessor,
    *,
    parts: Sequence[Part],
    card: CardFacts,
    dtype: str = "auto",
    options: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Result:
    """Write a planned model as a folder that ``from_pretrained`` loads.

    The weights are written into a hidden folder beside ``output``. If that is interrupted, the same call continues it:
    files that are as they were written, by their SHA-256 sums, are kept.

    Args:
        output: folder to write; new or empty.
        planned: model to write.
        processor: its processor.
        parts: the checkpoints it is made from.
        card: what its card says.
        dtype: ``auto``, ``float32``, ``bfloat16`` or ``float16``; segmenters are float32 in any case.
        options: further settings that the weights depend on.
        say: is told of the progress.

    Raises:
        VividMedError: the folder is not empty or cannot be written, the disk has no room, or a tensor is not finite.
    """
    check_output(output)
    shapes = planned.shapes(None if dtype == "auto" else DTYPES[dtype])
    config = planned.config
    config.architectures = ["VividMedForCausalLM"]
    config.dtype = shapes["model.embed_tokens.weight"].dtype
    config.check_tokenizer(processor.tokenizer)

    def files(folder: Path, terms: list[DatasetTerms]) -> None:
        config.save_pretrained(folder)
        GenerationConfig(
            bos_token_id=config.text_config.bos_token_id,
            eos_token_id=config.text_config.eos_token_id,
            pad_token_id=config.text_config.pad_token_id,
        ).save_pretrained(folder)
        processor.save_pretrained(folder)
        write_card(folder, output.name, parts=parts, facts=card, report=planned.report, terms=terms)

    size = write_folder(
        output,
        shapes,
        planned.plan.make,
        parts=parts,
        licence=card.licence,
        report=planned.report,
        options={**(options or {}), "dtype": dtype},
        files=files,
        say=say,
    )
    return Result(folder=output, report=planned.report, bytes=size)


def write_folder(
    output: Path,
    shapes: Mapping[str, torch.Tensor],
    make: Callable[[str], torch.Tensor],
    *,
    parts: Sequence[Part],
    licence: str | None,
    report: LoadReport,
    options: Mapping[str, Any],
    files: Callable[[Path, list[DatasetTerms]], None],
    weights_name: str = "model",
    shard_bytes: int | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> int:
    """Write weights, then what belongs to them, into a folder that appears complete or not at all.

    Args:
        output: folder to write.
        shapes: see :func:`vividmed.models.conversion.writing.plan_shards`.
        make: see :func:`vividmed.models.conversion.writing.write_shards`.
        parts: the checkpoints it is made from.
        licence: licence given by the user.
        report: what becomes of each tensor.
        options: settings that the weights depend on.
        files: writes the other files into a folder, given the terms.
        weights_name: name of the weights' files, without suffix.
        shard_bytes: largest size of one of them; 4 GB by default.
        say: is told of the progress.

    Returns:
        Size of the weights in bytes.
    """
    partial = output.with_name(f".{output.name}.partial")
    total = sum(tensor.nbytes for tensor in shapes.values())
    _check_room(output, partial, total)
    terms = combine_terms([each for part in parts for each in part.terms(licence)])
    fingerprint = {
        "version": __version__,
        "parts": [[part.role, part.state()] for part in parts],
        "options": dict(options),
    }
    try:
        written = write_shards(
            partial,
            shapes,
            make,
            fingerprint=fingerprint,
            weights_name=weights_name,
            shard_bytes=SHARD_BYTES if shard_bytes is None else shard_bytes,
            on_shard=lambda done, count: say(f"weights: file {done} of {count}"),
        )
        files(partial, terms)
        write_provenance(partial, terms)
        write_atomically(partial / REPORT_FILE, json.dumps(report.to_dict(), indent=1) + "\n")
        _finish(partial, output, written)
    except OSError as error:
        raise VividMedError(
            f"{output}: cannot be written ({error.strerror or error}); make room or choose another folder, then run the "
            "command again: finished files are kept"
        ) from error
    return total


def has_released_sizes(config: VividMedConfig) -> bool:
    """Whether a model has the sizes of the published one, the number of its tokens excepted."""
    published = VividMedConfig.preset("17b")
    return all(
        getattr(found, size) == getattr(expected, size)
        for found, expected in (
            (config.text_config, published.text_config),
            (config.vision_config, published.vision_config),
        )
        for size in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    )


def write_card(
    folder: Path,
    name: str,
    *,
    parts: Sequence[Part],
    facts: CardFacts,
    report: LoadReport,
    terms: Iterable[DatasetTerms],
    base_model: str | None = None,
) -> None:
    """Write README.md of a made model.

    Args:
        folder: to write into.
        name: of the model.
        parts: the checkpoints it is made from.
        facts: what it says.
        report: what became of each tensor.
        terms: of the parts.
        base_model: Hub id of the base model of an adapter.
    """
    licence: dict[str, Any] = {}
    if facts.licence is not None:
        slug = facts.licence.lower().replace(" ", "-")
        known = slug in _HUB_LICENCES
        licence = {"license": slug if known else "other"} | ({} if known else {"license_name": slug})
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="image-text-to-text",
        tags=["medical", "radiology", "vividmed", *facts.tags],
        base_model=base_model,
        **licence,
    )
    counts = {fate: len(names) for fate, names in report.to_dict().items()}
    card = fill_template(
        packaged_folder("model_cards") / "weights.md.jinja",
        data,
        {
            "name": name,
            "facts": facts,
            "released": None if facts.released is None else _released_facts(facts.released),
            "parts": [{"role": part.role, "name": display_name(part.place)} for part in parts],
            "counts": counts,
            "provenance": safe_terms(terms),
            "versions": {
                "vividmed": __version__,
                "transformers": transformers.__version__,
                "torch": torch.__version__,
            },
        },
    )
    write_atomically(folder / "README.md", card)


def _released_facts(name: str) -> tuple[str, str]:
    """The sections of a released card before and after the one on use, from the intended use on."""
    card = (packaged_folder("model_cards") / "released" / f"{name}.md").read_text(encoding="utf-8")
    before, _, rest = card[card.index("## Intended use") :].partition("## Use\n")
    return before.strip(), rest[rest.index("## ") :].strip()


def _check_room(output: Path, partial: Path, total: int) -> None:
    existing = next(parent for parent in output.absolute().parents if parent.is_dir())
    present = sum(path.stat().st_size for path in partial.glob("*.safetensors")) if partial.is_dir() else 0
    free = shutil.disk_usage(existing).free
    if total - present > free:
        raise VividMedError(
            f"--output {output}: the weights take {total / 1e9:.1f} GB, but only {free / 1e9:.1f} GB are free there; make "
            "room or name a folder on another disk"
        )


def _finish(partial: Path, output: Path, written: Mapping[str, Mapping[str, Any]]) -> None:
    """List all files with their sums, and give the folder its name."""
    digests: dict[str, Any] = {}
    for path in sorted(path for path in partial.rglob("*") if path.is_file() and path.name != MANIFEST_FILE):
        name = path.relative_to(partial).as_posix()
        if name not in written:
            sync_file(path)
        digests[name] = written.get(name) or file_digest(path)
    write_atomically(partial / MANIFEST_FILE, json.dumps({"files": digests}, indent=1))
    if output.is_dir():
        output.rmdir()
    partial.rename(output)
    sync_folder(output.parent)
