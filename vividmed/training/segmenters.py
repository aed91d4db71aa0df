"""Segmenters of a language model: loading them from where they were aligned, and freezing them."""

from collections.abc import Collection, Mapping

from transformers import PreTrainedModel

from vividmed.errors import VividMedError
from vividmed.models.phrases.grounding import GroundingProjection
from vividmed.models.segmenter.modeling_segmenter import InstanceSegmenter, Segmenter
from vividmed.training.hub_files import check_place

SEGMENTERS: dict[str, type[Segmenter] | type[InstanceSegmenter]] = {
    "segmenter": Segmenter,
    "instance_segmenter": InstanceSegmenter,
}


def load_segmenter(segmenter_name: str, source: str) -> Segmenter | InstanceSegmenter:
    """Load a segmenter; the boxes of an instance segmenter may start from the weights of a plain one.

    Args:
        segmenter_name: ``segmenter`` or ``instance_segmenter``.
        source: folder or Hub id.

    Raises:
        VividMedError: the segmenter is not found, or has another architecture.
    """
    check_place(source, f"--{segmenter_name}")
    new_heads = ("box_head", "score_head") if segmenter_name == "instance_segmenter" else ()
    try:
        return SEGMENTERS[segmenter_name].from_pretrained(source, new_modules=new_heads)
    except VividMedError as error:
        raise VividMedError(f"--{segmenter_name} {error}") from error
    except (OSError, ValueError) as error:
        raise VividMedError(
            f"--{segmenter_name} {source}: cannot be loaded: {' '.join(str(error).split())[:200]}; name a folder that an "
            "alignment stage has written"
        ) from error


def attach_segmenters(model: PreTrainedModel, sources: Mapping[str, str]) -> None:
    """Attach segmenters to a model, with a new projection to prompt them if the model has none of their width.

    Args:
        model: a ``VividMedForCausalLM`` without adapters.
        sources: folder or Hub id of ``segmenter`` and ``instance_segmenter``; the model keeps those not named.

    Raises:
        VividMedError: a source is not a segmenter, the two differ in width, or the model ends up with neither.
    """
    for segmenter_name, source in sources.items():
        segmenter = load_segmenter(segmenter_name, source)
        setattr(model, segmenter_name, segmenter)
        setattr(model.config, f"{segmenter_name}_config", segmenter.config)
    widths = {
        segmenter_name: getattr(model, segmenter_name).config.hidden_size
        for segmenter_name in SEGMENTERS
        if getattr(model, segmenter_name) is not None
    }
    if not widths:
        raise VividMedError(
            "the model has no segmenters: name them with --segmenter and --instance_segmenter, "
            "or a model that was trained with grounding"
        )
    if len(set(widths.values())) > 1:
        raise VividMedError(
            f"the segmenters read the same prompts but are {' and '.join(map(str, widths.values()))} wide: "
            "name two of one width"
        )
    hidden, width = model.config.text_config.hidden_size, next(iter(widths.values()))
    if model.grounding_projection is None or model.grounding_projection[-1].out_features != width:
        model.grounding_projection = GroundingProjection(hidden, width)


def freeze_modules(model: PreTrainedModel, names: Collection[str]) -> None:
    """Freeze top-level modules, and always the parameters that draw instance masks, which no stage trains.

    Args:
        model: a ``VividMedForCausalLM``; what adapters wrap is frozen where it is wrapped.
        names: such as ``segmenter``; those the model lacks are ignored.
    """
    for name in names:
        if (module := getattr(model, name, None)) is not None:
            module.requires_grad_(False)
    if model.instance_segmenter is not None:
        for parameter in model.instance_segmenter.mask_parameters():
            parameter.requires_grad_(False)
