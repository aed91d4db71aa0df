"""Which modules get a low-rank adapter, and which are trained whole: groups of modules by name.

``published`` is the choice of the published training: inside the vision-language model every linear layer gets an
adapter, and every other module with weights (norms, embeddings, the patch convolution) is trained whole and saved with
it. Outside of it (language head, segmenters, grounding projection) everything that is not frozen is trained whole.
Freezing the vision tower leaves it out and, as published, also restricts the decoder's adapters to the vision experts.

The other groups put adapters on the linear layers of one part each. Of the embedding and the head only the rows of the
eight added tokens are trained, and norms stay as they are. That is a small share of the memory: whole embeddings and
head of the 17B model need 4.2 GB with gradients and moments. ``whole-tower`` is for a vision tower that is new: a change
of low rank cannot teach random weights to see.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from vividmed.errors import VividMedError
from vividmed.models.adapters.settings import GROUNDING_MODULES
from vividmed.processing.special_tokens import SPECIAL_TOKENS

__all__ = [
    "GROUNDING_MODULES",
    "GROUPS",
    "PUBLISHED",
    "WHOLE_TOWER",
    "AdapterSelection",
    "as_whole_modules",
    "check_groups",
    "select_modules",
    "token_rows",
]

_SEGMENTERS = GROUNDING_MODULES[:2]
PUBLISHED = "published"
WHOLE_TOWER = "whole-tower"
GROUPS = {
    "vision-experts": "adapters on the decoder's experts for image tokens",
    "language-experts": "adapters on the decoder's experts for text",
    "vision-tower": "adapters on the vision tower and its projection",
    WHOLE_TOWER: "vision tower and projection whole, for those that are new",
    "segmenters": "both segmenters whole",
    PUBLISHED: "adapters on all of these but the segmenters, and everything else whole, as published",
    "all": "the first three and the segmenters",
}
"""Names that ``--adapter_groups`` takes, and what they train."""

_ADAPTED = ("vision-experts", "language-experts", "vision-tower")
_TOWER = "model.vision"
_TOKEN_MODULES = ("model.embed_tokens", "lm_head")


@dataclass(frozen=True)
class AdapterSelection:
    """Full names of the modules that get a low-rank adapter, and of those that are trained whole.

    Attributes:
        target_modules: names of linear layers.
        modules_to_save: names of modules of any kind.
        token_rows: whether the rows of the added tokens in embedding and head are trained.
    """

    target_modules: list[str]
    modules_to_save: list[str]
    token_rows: bool = False


def check_groups(groups: Sequence[str]) -> None:
    """Raise a VividMedError that names the first unknown group."""
    for name in groups:
        if name not in GROUPS:
            raise VividMedError(f"--adapter_groups {name}: unknown; choose from {', '.join(GROUPS)}")


def select_modules(
    model: nn.Module,
    *,
    groups: Sequence[str] = (PUBLISHED,),
    freeze_vision: bool = False,
    adapt_language: bool | None = None,
    frozen: Sequence[str] = (),
) -> AdapterSelection:
    """Choose the modules of groups.

    Args:
        model: a ``VividMedForCausalLM``.
        groups: names from :data:`GROUPS`.
        freeze_vision: leave the vision tower untrained.
        adapt_language: in ``published``: adapt the language experts; None for the published coupling,
            ``not freeze_vision``.
        frozen: top-level modules to leave untrained, such as ``segmenter``.

    Returns:
        Names in the order of the model's modules.

    Raises:
        VividMedError: a group is unknown, or asks for what is frozen.
    """
    check_groups(groups)
    if PUBLISHED in groups:
        return _published(model, freeze_vision, adapt_language, frozen)
    wanted = set(groups)
    if "all" in wanted:
        wanted |= {*_ADAPTED, "segmenters"} - ({"vision-tower"} if freeze_vision else set())
        wanted -= set() if _trainable(model, _SEGMENTERS, frozen) else {"segmenters"}
    for name in ("vision-tower", WHOLE_TOWER):
        if freeze_vision and name in wanted:
            raise VividMedError(
                f"--adapter_groups {name}: contradicts --freeze_vision; leave one of them out"
            )
    if WHOLE_TOWER in wanted:
        # What is trained whole needs no adapters.
        wanted.discard("vision-tower")
    if "segmenters" in wanted and not _trainable(model, _SEGMENTERS, frozen):
        raise VividMedError(
            "--adapter_groups segmenters: this run trains none; stages vg and grg do, unless they are frozen"
        )
    targets = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and _group(name) in wanted
    ]
    if not targets:
        raise VividMedError(
            f"--adapter_groups {' '.join(groups)}: puts an adapter on no layer; add a group that does, such as "
            "language-experts"
        )
    whole = _trainable(model, _SEGMENTERS, frozen) if "segmenters" in wanted else []
    whole += _trainable(model, GROUNDING_MODULES[2:], frozen)
    whole += [_TOWER] if WHOLE_TOWER in wanted else []
    return AdapterSelection(targets, whole, token_rows=True)


def as_whole_modules(selection: AdapterSelection, roots: Sequence[str]) -> AdapterSelection:
    """Train and save top-level modules whole instead of layer by layer.

    PEFT saves only what it wraps. A module that has buffers but no weights, such as the frequencies of the segmenters'
    position code, is saved only as part of a larger one.
    """
    others = [name for name in selection.modules_to_save if name.partition(".")[0] not in roots]
    chosen = {name.partition(".")[0] for name in selection.modules_to_save}
    whole = [*others, *(root for root in roots if root in chosen)]
    return AdapterSelection(selection.target_modules, whole, selection.token_rows)


def token_rows(tokenizer: Any) -> dict[str, list[int]]:
    """Rows of the added tokens in the embedding and the head, as PEFT's ``trainable_token_indices`` takes them."""
    rows = sorted(tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)))
    return {name: list(rows) for name in _TOKEN_MODULES}


def _published(
    model: nn.Module, freeze_vision: bool, adapt_language: bool | None, frozen: Sequence[str]
) -> AdapterSelection:
    adapt_language = not freeze_vision if adapt_language is None else adapt_language
    targets, whole = [], []
    for name, module in model.named_modules():
        if any(True for _ in module.children()) or not any(True for _ in module.parameters()):
            continue
        root, _, path = name.partition(".")
        if root in frozen or (freeze_vision and name.startswith(f"{_TOWER}.")):
            continue
        if root != "model" or not isinstance(module, nn.Linear):
            whole.append(name)
        elif adapt_language or "language_" not in path:
            targets.append(name)
    return AdapterSelection(targets, whole)


def _group(name: str) -> str | None:
    if name.startswith(f"{_TOWER}."):
        return "vision-tower"
    if name.startswith("model.layers."):
        return "vision-experts" if ".vision_" in name else "language-experts"
    return None


def _trainable(model: nn.Module, names: Sequence[str], frozen: Sequence[str]) -> list[str]:
    return [name for name in names if getattr(model, name, None) is not None and name not in frozen]
