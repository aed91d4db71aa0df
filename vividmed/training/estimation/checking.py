"""What a run needs, checked before anything is loaded: arguments, data, model, and the memory of each GPU."""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from vividmed.errors import VividMedError
from vividmed.files import or_packaged
from vividmed.models.configuration_vividmed import VividMedConfig
from vividmed.models.segmenter.configuration_segmenter import InstanceSegmenterConfig, SegmenterConfig
from vividmed.processing.image_processing_vividmed import VividMedImageProcessor
from vividmed.processing.processing_vividmed import VividMedProcessor
from vividmed.processing.special_tokens import SPECIAL_TOKENS
from vividmed.training.adapters.groups import GROUNDING_MODULES
from vividmed.training.adapters.peft import adapter_base, find_adapter
from vividmed.training.estimation.estimate import GIB, MemoryEstimate, Sharding
from vividmed.training.estimation.planning import RunPlan, check_weights
from vividmed.training.loading import check_architecture, load_processor, take_adapter_settings
from vividmed.training.memory import memory_summary
from vividmed.training.rows import load_rows
from vividmed.training.settings.preflight import check_environment, check_streaming
from vividmed.training.stages.language import LanguageStage
from vividmed.training.stages.stage import Stage

_KINDS = {"NO": "none", "MULTI_CPU": "ddp", "MULTI_GPU": "ddp", "FSDP": "fsdp2"}
_BATCHES = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class CheckOptions:
    """Options of a check that are not arguments of the stage.

    Attributes:
        gpu_memory: bytes of a GPU, to look for the largest batch.
        sharding: how the run is divided among GPUs.
        preset: size of a model that is not there yet.
        read_data: whether rows are looked at.
        gpu: whether the run is one on accelerators.
    """

    gpu_memory: float | None = None
    sharding: Sharding = field(default_factory=Sharding)
    preset: str | None = None
    read_data: bool = True
    gpu: bool = True


class Report:
    """Lines of a check, and whether it has found a problem."""

    def __init__(self, say: Callable[[str], None]):
        self.say = say
        self.problems: list[str] = []

    def attempt(self, name: str, check: Callable[[], str]) -> None:
        """Print what a check says, or the problem that it finds."""
        try:
            self.say(f"{name:<12}{check()}")
        except VividMedError as error:
            self.problems.append(str(error))
            self.say(f"{name:<12}PROBLEM: {error}")


def check_run(stage: Stage, options: CheckOptions, say: Callable[[str], None]) -> list[str]:
    """Check a stage and print what it needs.

    Args:
        stage: with its arguments.
        options: of the check.
        say: prints a line.

    Returns:
        The problems that would stop the run.

    Raises:
        VividMedError: the model is not known, so that nothing can be said about memory.
    """
    report = Report(say)
    report.attempt("arguments", lambda: _arguments(stage))
    report.attempt("data", lambda: _data(stage, options.read_data))
    if not isinstance(stage, LanguageStage):
        say(f"memory      not estimated for stage {stage.name}, whose models have about 100 million weights")
        return report.problems
    plan = build_plan(stage, options)
    report.attempt("model", lambda: _model(stage, plan, options))
    say("")
    say(memory_table(plan))
    say("")
    for line in _memory(plan, options):
        say(line)
    return report.problems


def build_plan(stage: Any, options: CheckOptions) -> RunPlan:
    """The run's model on the meta device.

    Raises:
        VividMedError: there is no such model, or the arguments do not fit it.
    """
    args, grounding = stage.model_args, getattr(stage, "grounding_args", None)
    source, adapter = args.model_name_or_path, None
    if options.preset is not None:
        config = VividMedConfig.preset(options.preset, grounding=grounding is not None)
        processor = _processor_of(options.preset, config)
    else:
        processor = load_processor(args)
        if source is None:
            config = VividMedConfig.tiny(len(processor.tokenizer), grounding=grounding is not None)
        else:
            adapter = find_adapter(source, revision=args.model_revision)
            base = source
            if adapter is not None:
                take_adapter_settings(args, adapter)
                base = adapter_base(adapter)
            check_architecture(base, args.model_revision if adapter is None else "main")
            config = VividMedConfig.from_pretrained(base)
    if grounding is not None:
        for name, kind in (("segmenter", SegmenterConfig), ("instance_segmenter", InstanceSegmenterConfig)):
            if name in grounding.sources:
                setattr(config, f"{name}_config", kind.from_pretrained(grounding.sources[name]))
        if config.prompt_size is None:
            raise VividMedError(
                "the model has no segmenters: name them with --segmenter and --instance_segmenter, or a model that was "
                "trained with grounding"
            )
    config.check_tokenizer(processor.tokenizer)
    return RunPlan(
        config,
        processor,
        model_args=args,
        data_args=stage.data_args,
        training_args=stage.args,
        frozen=GROUNDING_MODULES if grounding is None else grounding.frozen,
        adapter=adapter,
        grounds=grounding is not None,
        sharding=options.sharding,
        gpu=options.gpu,
    )


def memory_table(plan: RunPlan) -> str:
    """Weights by part of the model, and those that are trained."""
    # Bytes are in the estimate, which knows what is quantised.
    lines = [line[:52] for line in memory_summary(plan.model).splitlines()]
    share = 100 * plan.state.trainable / plan.state.parameters
    return "\n".join([*lines[:-1], f"trained: {plan.state.trainable:,} weights, {share:.2f} %"])


def read_sharding(path: Path) -> Sharding:
    """How a configuration file of accelerate, or one in the package such as ``fsdp2.yaml``, divides a run.

    Raises:
        VividMedError: the file cannot be read, or divides it in another way than the estimate knows.
    """
    path = or_packaged(path, "stages/accelerate")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        kind, gpus = str(content["distributed_type"]), int(content.get("num_processes", 1))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise VividMedError(
            f"--accelerate-config {path}: cannot be read ({' '.join(str(error).split())[:200]}); name a file such as "
            "stages/accelerate/fsdp2.yaml"
        ) from error
    if kind == "DEEPSPEED":
        name = f"zero{(content.get('deepspeed_config') or {}).get('zero_stage')}"
        known = name in ("zero2", "zero3")
    else:
        name, known = _KINDS.get(kind, ""), kind in _KINDS
    if not known:
        raise VividMedError(
            f"--accelerate-config {path}: the estimate does not know distributed_type {kind} {name}; use DDP, FSDP2, ZeRO-2 "
            "or ZeRO-3"
        )
    return Sharding(name, gpus)


def parse_memory(text: str) -> float:
    """Bytes of a size such as ``24GB`` or ``79.6GiB``; GPUs are sold in GB that are GiB.

    Raises:
        argparse.ArgumentTypeError: it is not one.
    """
    number = text.strip().lower().removesuffix("b").removesuffix("i").removesuffix("g")
    try:
        value = float(number)
    except ValueError:
        value = 0.0
    if not 0 < value < 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size in gigabytes; write 24GB")
    return value * GIB


def describe(found: MemoryEstimate) -> Iterator[str]:
    """Lines with the parts of an estimate."""
    for name, value in found.parts.items():
        yield f"  {name:<22}{value / GIB:>10.2f} GiB"
    yield f"  {'peak':<22}{found.peak / GIB:>10.2f} GiB"


def _arguments(stage: Stage) -> str:
    check_streaming(stage.data_args, stage.args)
    check_environment(stage.args, stage.metrics)
    return "ok"


def _data(stage: Stage, read: bool) -> str:
    args = stage.data_args
    if args.dataset_name is None and args.mixture is None:
        return "the embedded sample"
    if not read:
        return "not looked at"
    train, evaluation = load_rows(stage.row_kind, args, stage.args)
    size = sum(train.sizes) if hasattr(train, "sizes") else len(train)
    held_out = "none" if evaluation is None else f"{len(evaluation):,}"
    return f"{size:,} rows to train on, {held_out} to evaluate on"


def _model(stage: Any, plan: RunPlan, options: CheckOptions) -> str:
    source = stage.model_args.model_name_or_path
    weights = f"{plan.state.parameters:,} weights"
    if options.preset is not None:
        return f"{weights}, preset {options.preset}"
    if source is None:
        return f"{weights}, drawn at random"
    base = source if plan.adapter is None else adapter_base(plan.adapter)
    if not Path(base).is_dir():
        return f"{weights}; those of {base} are compared when they are downloaded"
    if not any(Path(base).glob("*.safetensors*")):
        return f"{weights}; {base} contains a configuration but no weights yet, and a run would stop there"
    # The base model has lost its own names to the adapter around it.
    return f"{weights}; {check_weights(Path(base), plan.bare())} tensors of {base} fit"


def _memory(plan: RunPlan, options: CheckOptions) -> Iterator[str]:
    found = plan.estimate()
    batch, sharding = found.batch, plan.sharding
    gpus = (
        f"each of {sharding.gpus} GPUs ({sharding.kind})"
        if sharding.gpus > 1
        else "one GPU"
        if plan.gpu
        else "one process"
    )
    yield (
        f"peak memory of {gpus}: {batch.samples} samples of {batch.tokens:,} tokens, images of {batch.patches:,} patches, "
        f"optimizer {plan.args.optimizer_name}, "
        f"{'with' if plan.checkpointed else 'without'} activation checkpointing"
    )
    yield from describe(found)
    yield ""
    yield "peak in GiB by sequence length and samples per GPU"
    yield f"  {'tokens':<8}" + "".join(f"{samples:>9}" for samples in _BATCHES)
    for tokens in sorted({batch.tokens // 4, batch.tokens // 2, batch.tokens}):
        if tokens <= batch.image_tokens + 8:
            continue
        peaks = [plan.estimate(samples, tokens).peak / GIB for samples in _BATCHES]
        yield f"  {tokens:<8}" + "".join(f"{peak:>9.2f}" for peak in peaks)
    if options.gpu_memory is not None:
        largest = plan.largest_batch(options.gpu_memory)
        memory = f"{options.gpu_memory / GIB:g} GiB"
        yield ""
        if largest:
            yield f"largest batch that fits {memory}: {largest} samples per GPU"
        else:
            yield f"no batch fits {memory}: even 1 sample per GPU takes {plan.estimate(1).peak / GIB:.1f} GiB"


class _PresetVocabulary:
    """Stands in for the tokenizer of a model that is not there yet: its size, and the ids of the added tokens."""

    def __init__(self, size: int):
        self.size = size

    def __len__(self) -> int:
        return self.size

    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        if isinstance(tokens, str):
            return self.size - len(SPECIAL_TOKENS) + SPECIAL_TOKENS.index(tokens)
        return [self.convert_tokens_to_ids(token) for token in tokens]


def _processor_of(preset: str, config: VividMedConfig) -> Any:
    if preset == "tiny":
        return VividMedProcessor.tiny()
    vocabulary = _PresetVocabulary(config.text_config.vocab_size)
    return SimpleNamespace(image_processor=VividMedImageProcessor(), tokenizer=vocabulary)
