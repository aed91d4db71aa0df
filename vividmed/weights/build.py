"""Build a base model from the weights of others."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from vividmed.errors import VividMedError
from vividmed.models.configuration_vividmed import VividMedConfig, VividMedVisionConfig
from vividmed.models.conversion.building import (
    PlannedModel,
    SegVolWeights,
    plan_model_from_cogvlm,
    plan_model_from_llm,
    vision_config_of,
)
from vividmed.models.conversion.cogvlm import config_from_cogvlm
from vividmed.models.conversion.llama import text_config_from_llm
from vividmed.processing.image_processing_vividmed import VividMedImageProcessor
from vividmed.processing.processing_vividmed import VividMedProcessor
from vividmed.processing.special_tokens import special_token_ids
from vividmed.triples import Triple
from vividmed.weights.folder import (
    CardFacts,
    Part,
    Result,
    check_output,
    has_released_sizes,
    write_model_folder,
)
from vividmed.weights.sources import local_place
from vividmed.weights.tokenizers import load_tokenizer

SCRATCH = "scratch"
_PUBLISHED_PATCH: Triple = (16, 16, 16)
_PUBLISHED_GRID: Triple = (8, 32, 32)
# The preset whose vision tower a new one takes, by the least width of the language model.
_TOWERS = ((4096, "17b"), (1536, "3b"), (768, "1b"), (0, "tiny"))
# Towers up to this width see fewer tokens, as the tiny model does.
_TINY_WIDTH, _TINY_TOKENS = 128, 36


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """What to build a model from. Places are local files or folders, or repositories on the Hub.

    Attributes:
        cogvlm: CogVLM checkpoint; either this or ``llm``.
        llm: language model of the Llama type.
        vision: with ``llm``, a CogVLM or VividMed model whose vision tower to take, or ``scratch``.
        tokenizer: tokenizer of the language model; by default that in the folder of ``llm``.
        segvol: SegVol's weights, where both segmenters start.
        segvol_patch_size: (z, y, x) of SegVol's patches.
        segvol_position_grid: (z, y, x) of SegVol's position embeddings.
        segvol_heads: attention heads of SegVol's image encoder; by default heads of 64 channels.
        preset: preset whose sizes a new vision tower takes; by default one that suits the language model's width.
        patch_size: (z, y, x) of patches; by default the published ones, or those of the vision tower's configuration.
        position_grid: (z, y, x) of position embeddings; by default as for patches.
        dtype: ``auto``, ``float32``, ``bfloat16`` or ``float16``; ``auto`` keeps that of the language model.
        licence: licence under which the result may be shared, such as Apache-2.0.
        seed: random seed of new tensors.
        allow_partial: make missing tensors new and ignore unknown ones instead of refusing.
    """

    cogvlm: str | None = None
    llm: str | None = None
    vision: str = SCRATCH
    tokenizer: str | None = None
    segvol: str | None = None
    segvol_patch_size: Triple = (4, 16, 16)
    segvol_position_grid: Triple = (8, 16, 16)
    segvol_heads: int | None = None
    preset: str | None = None
    patch_size: Triple | None = None
    position_grid: Triple | None = None
    dtype: str = "auto"
    licence: str | None = None
    seed: int = 0
    allow_partial: bool = False


def build_model(
    options: BuildOptions, output: str | Path, *, say: Callable[[str], None] = lambda text: None
) -> Result:
    """Build a model and write it with its processor, card, provenance and a report of every tensor.

    Weights are read, converted and written one tensor at a time. Safe to interrupt: the same call resumes.

    Args:
        options: what to build it from.
        output: folder to write; new or empty.
        say: is told of the progress.

    Raises:
        VividMedError: a source is missing, damaged or of another kind, or the folder cannot be written.
    """
    output = Path(output)
    check_output(output)
    if (options.cogvlm is None) == (options.llm is None):
        raise VividMedError("give exactly one of --cogvlm and --llm: the checkpoint of the language model")
    parts: list[Part] = []
    segvol = _segvol(options, parts)
    if options.cogvlm is not None:
        planned, processor = _from_cogvlm(options, options.cogvlm, segvol, parts)
    else:
        planned, processor = _from_llm(options, str(options.llm), segvol, parts)
    new = len(planned.report.initialized)
    facts = CardFacts(
        summary="A VividMed base model built from the parts below. It has not been trained as a whole.",
        advice=(
            f"{new} of its tensors are new, with random values: train it before use. "
            if new
            else "Its 3D parts are inflated from 2D weights and its token rows are new: train it before use. "
        )
        + "A run starts from it with `--model_name_or_path`.",
        licence=options.licence,
        released="base_17b" if options.cogvlm is not None and has_released_sizes(planned.config) else None,
    )
    settings = {"seed": options.seed, "config": planned.config.to_dict()}
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


def _segvol(options: BuildOptions, parts: list[Part]) -> SegVolWeights | None:
    if options.segvol is None:
        return None
    path = local_place(options.segvol, "--segvol")
    parts.append(Part(role="segmenters", place=options.segvol, path=path))
    return SegVolWeights(
        place=path,
        patch_size=options.segvol_patch_size,
        position_grid=options.segvol_position_grid,
        num_attention_heads=options.segvol_heads,
    )


def _from_cogvlm(
    options: BuildOptions, place: str, segvol: SegVolWeights | None, parts: list[Part]
) -> tuple[PlannedModel, VividMedProcessor]:
    if options.tokenizer is None:
        raise VividMedError(
            "--tokenizer is missing: CogVLM checkpoints have none; give that of Vicuna 7B v1.5 (tokenizer.model)"
        )
    tokenizer_place = local_place(options.tokenizer, "--tokenizer", weights=False)
    folder = local_place(place, "--cogvlm")
    parts.insert(0, Part(role="language model and vision tower", place=place, path=folder))
    patch, grid = options.patch_size or _PUBLISHED_PATCH, options.position_grid or _PUBLISHED_GRID
    stated = config_from_cogvlm(folder / "config.json", patch_size=patch, position_grid=grid)
    tokenizer = load_tokenizer(tokenizer_place, vocab_size=stated.text_config.vocab_size - 8)
    planned = plan_model_from_cogvlm(
        folder,
        vocab_size=len(tokenizer),
        segvol=segvol,
        patch_size=patch,
        position_grid=grid,
        seed=options.seed,
        allow_partial=options.allow_partial,
    )
    return planned, _processor(planned.config, tokenizer)


def _from_llm(
    options: BuildOptions, place: str, segvol: SegVolWeights | None, parts: list[Part]
) -> tuple[PlannedModel, VividMedProcessor]:
    folder = local_place(place, "--llm")
    parts.insert(0, Part(role="language model", place=place, path=folder))
    text, _ = text_config_from_llm(folder)
    tokenizer_place = folder
    if options.tokenizer is not None:
        tokenizer_place = local_place(options.tokenizer, "--tokenizer", weights=False)
    option = "--llm" if options.tokenizer is None else "--tokenizer"
    tokenizer = load_tokenizer(tokenizer_place, vocab_size=text.vocab_size, option=option)
    vision: Path | VividMedVisionConfig
    if options.vision == SCRATCH:
        name = options.preset or next(preset for width, preset in _TOWERS if text.hidden_size >= width)
        vision = VividMedConfig.preset(name).vision_config
    elif options.preset is not None:
        raise VividMedError("--preset sizes a new vision tower; leave it out, or give --vision scratch")
    else:
        vision = local_place(options.vision, "--vision")
        vision_config_of(vision)
        parts.insert(1, Part(role="vision tower", place=options.vision, path=vision))
    planned = plan_model_from_llm(
        folder,
        vision=vision,
        vocab_size=len(tokenizer),
        segvol=segvol,
        patch_size=options.patch_size,
        position_grid=options.position_grid,
        seed=options.seed,
        allow_partial=options.allow_partial,
    )
    return planned, _processor(planned.config, tokenizer)


def _processor(config: VividMedConfig, tokenizer: PreTrainedTokenizerBase) -> VividMedProcessor:
    """Settle the token ids of a new model, and make its processor; patches and budget suit its vision tower."""
    vision, text = config.vision_config, config.text_config
    ids = special_token_ids(tokenizer)
    config.phrase_start_token_id, config.phrase_end_token_id = ids.phrase_start, ids.phrase_end
    ends = text.eos_token_id if isinstance(text.eos_token_id, list) else [text.eos_token_id]
    ends = list(dict.fromkeys([*(each for each in ends if each is not None), ids.end]))
    text.eos_token_id = ends[0] if len(ends) == 1 else ends
    text.bos_token_id, text.pad_token_id = ids.begin, tokenizer.pad_token_id
    image_processor = VividMedImageProcessor(patch_size=vision.patch_size)
    if vision.hidden_size <= _TINY_WIDTH:
        image_processor = image_processor.with_settings(max_image_tokens=_TINY_TOKENS)
    return VividMedProcessor(image_processor, tokenizer)
