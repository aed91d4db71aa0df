"""Convert a published adapter: into an adapter of ours, or merged into its base model."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vividmed.data.terms import DatasetTerms
from vividmed.errors import VividMedError
from vividmed.files import write_atomically
from vividmed.hub.base_model import find_base_model_id
from vividmed.models.adapters.settings import (
    ADAPTER_SETTINGS_FILE,
    ROUNDING,
    adapter_settings,
    write_adapter_settings,
)
from vividmed.models.configuration_vividmed import VividMedConfig
from vividmed.models.conversion.building import GROUNDING_MODULES, PlannedModel
from vividmed.models.conversion.published import (
    ADAPTER_CONFIG,
    PREFIX,
    PublishedAdapter,
    plan_published_adapter,
)
from vividmed.processing.processing_vividmed import VividMedProcessor
from vividmed.weights.folder import (
    DTYPES,
    CardFacts,
    Part,
    Result,
    check_output,
    has_released_sizes,
    write_card,
    write_folder,
    write_model_folder,
)
from vividmed.weights.sources import local_place

_NO_LICENCE = "no licence was found with the published weights"


@dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """What to convert. Places are local files or folders, or repositories on the Hub.

    Attributes:
        adapter: the published adapter.
        base: VividMed model that it belongs to, as ``vividmed build --cogvlm`` writes it.
        merge: write one model without PEFT instead of an adapter.
        sam_checkpoint: checkpoint in which the semantic segmenter was aligned.
        isam_checkpoint: checkpoint in which the instance segmenter was aligned.
        stage: which of the released adapters it is, 1, 2 or 3, whose facts the card then gives; by default 2 for an
            adapter of the published sizes without segmenters, else none.
        segmenter_heads: attention heads of the segmenters' image encoders; by default heads of 64 channels.
        dtype: ``auto``, ``float32``, ``bfloat16`` or ``float16``; ``auto`` keeps that of the base model.
        licence: licence under which the result may be shared.
        allow_partial: make missing tensors new and ignore unknown ones instead of refusing.
    """

    adapter: str
    base: str
    merge: bool = False
    sam_checkpoint: str | None = None
    isam_checkpoint: str | None = None
    stage: int | None = None
    segmenter_heads: int | None = None
    dtype: str = "auto"
    licence: str | None = None
    allow_partial: bool = False


def convert_adapter(
    options: ConvertOptions, output: str | Path, *, say: Callable[[str], None] = lambda text: None
) -> Result:
    """Convert a published adapter and write it with its processor, card, provenance and a report of every tensor.

    The result sees images as the published code resized them (``resampling="published"``) and computes rotary angles
    as it did (``rope_low_precision``). With ``merge``, weights are read, merged and written one tensor at a time.

    Args:
        options: what to convert.
        output: folder to write; new or empty.
        say: is told of the progress.

    Raises:
        VividMedError: a source is missing, damaged or does not fit the others, or the folder cannot be written.
    """
    output = Path(output)
    check_output(output)
    adapter_folder = local_place(options.adapter, "ADAPTER")
    adapter = PublishedAdapter.open(adapter_folder)
    base = local_place(options.base, "--base")
    _check_base(base, options.base)
    parts = [
        Part(role="adapter", place=options.adapter, path=adapter_folder, unlicensed=_NO_LICENCE),
        Part(role="base model", place=options.base, path=base),
    ]
    checkpoints: dict[str, Path] = {}
    for module, place, option in (
        ("segmenter", options.sam_checkpoint, "--sam-checkpoint"),
        ("instance_segmenter", options.isam_checkpoint, "--isam-checkpoint"),
    ):
        if place is not None:
            checkpoints[module] = local_place(place, option)
            role = module.replace("_", " ")
            parts.append(Part(role=role, place=place, path=checkpoints[module], unlicensed=_NO_LICENCE))
    planned = plan_published_adapter(
        adapter,
        base,
        checkpoints=checkpoints,
        num_attention_heads=options.segmenter_heads,
        allow_partial=options.allow_partial,
    )
    processor = VividMedProcessor.from_pretrained(base)
    processor.image_processor = processor.image_processor.with_settings(resampling="published")
    stage = options.stage
    if stage is None and not planned.config.prompt_size and has_released_sizes(planned.config):
        stage = 2
    facts = CardFacts(
        summary=(
            "The published VividMed weights in the format of this package"
            + (", merged into their base model." if options.merge else ", as an adapter.")
        ),
        advice=(
            'Images are resized as the weights saw them in training (`resampling="published"`), and rotary angles are '
            "rounded as they were (`rope_low_precision`)."
        ),
        licence=options.licence,
        released=None if stage is None else f"stage_{stage}",
    )
    settings = {"base": planned.config.to_dict(), "merge": options.merge}
    if options.merge:
        return write_model_folder(
            output,
            planned,
            processor,
            parts=parts,
            card=facts,
            dtype=options.dtype,
            options=settings,
            say=say,
        )
    return _write_adapter(output, options, adapter, planned, processor, parts, facts, settings, say)


def _check_base(folder: Path, place: str) -> None:
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError):
        found = None
    if found != VividMedConfig.model_type:
        raise VividMedError(
            f"--base {place}: is not a VividMed model; build one from CogVLM with vividmed build and name it here"
        )


def _write_adapter(
    output: Path,
    options: ConvertOptions,
    adapter: PublishedAdapter,
    planned: PlannedModel,
    processor: VividMedProcessor,
    parts: list[Part],
    facts: CardFacts,
    settings: Mapping[str, Any],
    say: Callable[[str], None],
) -> Result:
    """Write the adapter's tensors under our names, with segmenters whole, as this package saves its own adapters."""
    plan = planned.plan
    roots = [name for name in GROUNDING_MODULES if any(key.startswith(name) for key in plan.expected)]
    whole = [name for name in plan.names() if name.startswith(tuple(roots))]
    own = {id(adapter.reader)}
    replaced = [
        name
        for name, rule in plan.rules.items()
        if not name.startswith(GROUNDING_MODULES) and {id(s.reader) for s in rule.sources} == own
    ]
    low_rank = [name for parts_ in adapter.low_rank.values() for name in parts_.values()]
    shapes: dict[str, torch.Tensor] = {}
    makers: dict[str, Callable[[], torch.Tensor]] = {}
    dtype = None if options.dtype == "auto" else DTYPES[options.dtype]
    for name in low_rank:
        stored = adapter.reader.shapes[name]
        full = PREFIX + name.removeprefix(PREFIX).replace(".default.", ".")
        shapes[full] = torch.empty(stored.shape, dtype=dtype or stored.dtype, device="meta")
        makers[full] = lambda name=name: adapter.reader.read(name)  # type: ignore[misc]
    for name in [*replaced, *whole]:
        stored_dtype = dtype or plan.rules[name].sources[0].shape.dtype if name in replaced else torch.float32
        shapes[PREFIX + name] = torch.empty(plan.expected[name].shape, dtype=stored_dtype, device="meta")
        makers[PREFIX + name] = lambda name=name: plan.make(name)  # type: ignore[misc]
    shapes[PREFIX + ROUNDING] = torch.empty(1, device="meta")
    makers[PREFIX + ROUNDING] = lambda: torch.ones(1)
    modules = sorted({name.rpartition(".")[0] for name in replaced})
    targets = sorted(weight.removesuffix(".weight") for weight in adapter.low_rank)
    config = {
        **adapter.config,
        "base_model_name_or_path": find_base_model_id(options.base) or str(options.base),
        "target_modules": targets,
        "modules_to_save": [*modules, *(root.removesuffix(".") for root in roots)],
        "auto_mapping": None,
        "inference_mode": True,
        "task_type": "CAUSAL_LM",
        "revision": None,
    }

    def files(folder: Path, terms: list[DatasetTerms]) -> None:
        write_atomically(folder / ADAPTER_CONFIG, json.dumps(config, indent=2) + "\n")
        write_adapter_settings(folder / ADAPTER_SETTINGS_FILE, adapter_settings(planned.config))
        processor.save_pretrained(folder)
        write_card(
            folder,
            output.name,
            parts=parts,
            facts=facts,
            report=planned.report,
            terms=terms,
            base_model=find_base_model_id(options.base),
        )

    size = write_folder(
        output,
        shapes,
        lambda name: makers[name](),
        parts=parts,
        licence=options.licence,
        report=planned.report,
        options={**settings, "dtype": options.dtype},
        files=files,
        weights_name="adapter_model",
        shard_bytes=1 << 62,
        say=say,
    )
    return Result(folder=output, report=planned.report, bytes=size)
