"""A whole training step."""

from collections.abc import Iterator

import torch

from tests.parity.cases_language import TEXT_INPUTS, image_inputs
from tests.parity.cases_segmenter import segmenter
from tests.parity.harness import Check, Golden, case, close
from tests.parity.models import published_model
from vividmed.models.conversion.segvol import segmenter_tensor_name
from vividmed.models.modeling_vividmed import VividMedForCausalLM
from vividmed.models.phrases.grounding import GroundingLabels, GroundingProjection, SampleIndex, phrase_states
from vividmed.models.segmenter.configuration_segmenter import InstanceSegmenterConfig, SegmenterConfig
from vividmed.models.segmenter.modeling_segmenter import InstanceSegmenter, Segmenter

# Published names of the logged components; focal losses end in their gamma.
COMPONENTS = {
    "dice": "dice",
    "focal-2.0": "focal",
    "instance-disc-focal-2.0": "score",
    "instance-disc-pos-focal-2.0": "score_positive",
    "instance-disc-neg-focal-2.0": "score_negative",
    "instance-box-l1": "box_l1",
    "instance-box-giou": "box_giou",
}


def published_grounded_model(golden: Golden) -> VividMedForCausalLM:
    """The whole published model with its segmenters."""
    model = published_model(golden)
    model.segmenter = segmenter(golden, golden.weights, "sam.", Segmenter, SegmenterConfig)
    model.instance_segmenter = segmenter(
        golden, golden.weights, "isam_model.", InstanceSegmenter, InstanceSegmenterConfig
    )
    prompt_size = model.segmenter.config.hidden_size
    model.grounding_projection = GroundingProjection(model.config.text_config.hidden_size, prompt_size)
    projection = {
        name.removeprefix("vg_proj."): value
        for name, value in golden.weights.items()
        if name.startswith("vg_proj.")
    }
    model.grounding_projection.load_state_dict(projection)
    return model


def our_name(published: str) -> str | None:
    """The name of a published parameter in our model; None where nothing computes with it."""
    for prefix, ours, instance in (
        ("sam.", "segmenter.", False),
        ("isam_model.", "instance_segmenter.", True),
    ):
        if published.startswith(prefix):
            name = segmenter_tensor_name(published.removeprefix(prefix), instance=instance)
            return None if name is None else ours + name
    return published.replace("vg_proj.", "grounding_projection.")


def labelled_phrases(description: dict, sample: int, count: int) -> torch.Tensor:
    """Which of the ``count`` phrases of a sample have labels; a mask of null means all."""
    mask = description["vg_label_mask"][sample]
    return torch.ones(count, dtype=torch.bool) if mask is None else torch.tensor(mask, dtype=torch.bool)


def labels_of(
    description: dict, tensors: dict[str, torch.Tensor], sample: int, chosen: torch.Tensor
) -> GroundingLabels:
    """The labels of a sample in our form, where ``chosen`` marks the labelled phrases."""
    phrases = chosen.nonzero().squeeze(1)
    if description["instance_mask"][sample] and f"index_offsets.{sample}" in tensors:
        counts = tensors[f"index_offsets.{sample}"].diff(dim=1).squeeze(1)
        return {"box_phrases": phrases, "box_counts": counts, "boxes": tensors[f"boxes.{sample}"]}
    if f"masks.{sample}" in tensors:
        return {"mask_phrases": phrases, "masks": tensors[f"masks.{sample}"]}
    return {}


@case("10_train_step")
def training_step(golden: Golden) -> Iterator[Check]:
    description, tensors = golden.case("10_train_step"), golden.tensors("10_train_step")
    model = published_grounded_model(golden)
    images = golden.images(tensors, "grounding_image")
    inputs = {name: tensors[name] for name in TEXT_INPUTS} | image_inputs(golden, "10_train_step")
    ends = (inputs["input_ids"] == model.config.phrase_end_token_id) & inputs["attention_mask"].bool()
    chosen = [
        labelled_phrases(description, sample, int(count)) for sample, count in enumerate(ends.sum(dim=1))
    ]
    outputs = model(
        **inputs,
        labels=tensors["labels"],
        label_weights=tensors["weight"],
        grounding_values=images,
        grounding_labels=[labels_of(description, tensors, *pair) for pair in enumerate(chosen)],
        output_hidden_states=True,
    )
    components = outputs.loss_components
    yield close("lm_loss", components["lm_loss"], tensors["lm_loss"])
    yield close("vg_loss", components["grounding_loss"], tensors["vg_loss"])
    yield close("total_loss", outputs.loss, tensors["total_loss"])
    for published, value in description["log"].items():
        yield close(published, components[COMPONENTS[published]], torch.tensor(value))

    samples = SampleIndex.build(inputs["input_ids"], inputs["attention_mask"])
    states = phrase_states(
        outputs.hidden_states[-1], inputs["input_ids"], samples, model.config.phrase_end_token_id
    )
    found = model.ground(grounding_values=images, **inputs)
    for sample, state in enumerate(states):
        prompts = model.grounding_projection(state)
        published = tensors[f"vg_prompts.{sample}"]
        yield close(
            f"vg_prompts.{sample}",
            prompts if len(prompts) == len(published) else prompts[chosen[sample]],
            published,
        )
        for name, ours in (
            ("masks_logits", found.masks[sample]),
            ("boxes_pred", found.boxes[sample]),
            ("disc_logit", found.box_logits[sample]),
        ):
            if f"{name}.{sample}" in tensors:
                published = tensors[f"{name}.{sample}"]
                # The published output holds the box of the semantic token too, which its loss drops.
                published = published[:, 1:] if name == "boxes_pred" else published
                yield close(f"{name}.{sample}", ours[chosen[sample]], published)

    outputs.loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    for name, norm in description["grad_norms"].items():
        gradient = gradients.get(our_name(name) or "")
        # A parameter that the batch gives no gradient to may have none or a zero one.
        ours = torch.tensor(0.0) if gradient is None else gradient.norm()
        if our_name(name) in gradients:
            yield close(f"gradient norm of {name}", ours, torch.tensor(norm))
    for name, published in tensors.items():
        if name.startswith("grad."):
            yield close(name, gradients[our_name(name.removeprefix("grad."))], published)
