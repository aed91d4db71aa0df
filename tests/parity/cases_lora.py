"""Adapters: which modules are chosen, what is trainable, what is saved, and the adapted model's outputs.

Published adapters save the segmenters layer by layer and so lose their Fourier frequencies; ours save them whole. Which
of their modules are trained is compared by name, their parameters and files are not.
"""

from collections.abc import Iterable, Iterator

import torch
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file

from tests.parity.cases_language import TEXT_INPUTS, image_inputs
from tests.parity.cases_segmenter import segmenter
from tests.parity.cases_training_step import our_name, published_grounded_model
from tests.parity.harness import Check, Golden, case, close, equal
from tests.parity.models import GROUNDING_PREFIXES, published_model
from vividmed.models.segmenter.configuration_segmenter import SegmenterConfig
from vividmed.models.segmenter.modeling_segmenter import Segmenter
from vividmed.training.adapters.groups import AdapterSelection, select_modules
from vividmed.training.adapters.peft import add_adapter

PEFT_PREFIX = "base_model.model."


def vision_language(names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if not name.removeprefix(PEFT_PREFIX).startswith(GROUNDING_PREFIXES))


def our_modules(names: Iterable[str]) -> list[str]:
    """Published module names as ours, those left out that nothing computes with."""
    ours = {our_name(f"{name}.weight") for name in names}
    return sorted(name.removesuffix(".weight") for name in ours if name is not None)


def lora_config(golden: Golden) -> LoraConfig:
    return LoraConfig(**golden.config["lora"], bias="none")


@case("09_lora")
def selection(golden: Golden) -> Iterator[Check]:
    published = golden.json("09_lora")
    model, grounded = published_model(golden), published_grounded_model(golden)
    # Published lists leave out what draws instance masks; ours freeze it in the whole module.
    masks = set(map(id, grounded.instance_segmenter.mask_parameters()))
    never_trained = {
        name.rpartition(".")[0] for name, parameter in grounded.named_parameters() if id(parameter) in masks
    }
    for setting, lists in published["selection"].items():
        segmenters_frozen = "freeze_sam=freeze_isam=True" in setting
        ours = select_modules(
            model if setting.startswith("no sam") else grounded,
            freeze_vision="freeze_vision=True" in setting,
            frozen=("segmenter", "instance_segmenter") if segmenters_frozen else (),
        )
        for field in ("target_modules", "modules_to_save"):
            chosen = set(getattr(ours, field)) - never_trained
            yield equal(f"{setting}: {field}", sorted(chosen), our_modules(lists[field]))

    adapted = add_adapter(model, lora_config(golden), select_modules(model))
    parameters = dict(adapted.named_parameters())
    for field, wanted in (("trainable_parameters", True), ("frozen_parameters", False)):
        names = sorted(name for name, parameter in parameters.items() if parameter.requires_grad == wanted)
        yield equal(field, names, vision_language(published[field]))
    shapes = {name: list(tensor.shape) for name, tensor in get_peft_model_state_dict(adapted).items()}
    wanted_shapes = {
        name: published["adapter_keys"][name] for name in vision_language(published["adapter_keys"])
    }
    yield equal("adapter keys and shapes", shapes, wanted_shapes)


@case("09_adapter_forward")
@torch.no_grad()
def adapter_forward(golden: Golden) -> Iterator[Check]:
    model = published_model(golden)
    folder = golden.folder / "adapter"
    config = LoraConfig.from_pretrained(folder)
    chosen = AdapterSelection(vision_language(config.target_modules), vision_language(config.modules_to_save))
    adapted = add_adapter(model, lora_config(golden), chosen).eval()
    weights = load_file(folder / "adapter_model.safetensors")
    loaded = set_peft_model_state_dict(adapted, {name: weights[name] for name in vision_language(weights)})
    yield equal("unexpected adapter keys", loaded.unexpected_keys, [])

    inputs = golden.tensors("02_lm")
    outputs = adapted(
        **{name: inputs[name] for name in TEXT_INPUTS},
        **image_inputs(golden, "02_lm"),
        labels=inputs["labels"],
        label_weights=inputs["weight"],
        output_hidden_states=True,
    )
    published = golden.tensors("09_adapter_forward")
    real = inputs["attention_mask"].bool()
    yield close("loss", outputs.loss, published["loss"])
    yield close("logits_sample0", outputs.logits[0][real[0]], published["logits_sample0"][real[0]])
    yield close("last_hidden", outputs.hidden_states[-1][real], published["last_hidden"][real])

    prefix = f"{PEFT_PREFIX}sam."
    trained = {
        f"sam.{name.removeprefix(prefix)}": value
        for name, value in weights.items()
        if name.startswith(prefix)
    }
    adapted_segmenter = segmenter(golden, golden.weights | trained, "sam.", Segmenter, SegmenterConfig)
    asked, patch_sizes = golden.tensors("04_sam"), golden.case("04_sam")["patch_size"]
    (masks,) = adapted_segmenter([asked["image.0"]], [asked["text_embedding.0"]], patch_sizes[:1]).masks
    yield close("sam_masks_image0", masks, published["sam_masks_image0"])
