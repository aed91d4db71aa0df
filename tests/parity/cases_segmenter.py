"""Segmenters, their losses and the loading of their weights against the published numbers."""

import re
from collections.abc import Iterator
from typing import TypeVar

import torch

from tests.parity.harness import Check, Golden, case, close, equal
from vividmed.models.conversion.segvol import (
    fit_segmenter_tensor,
    load_segmenter_weights,
    segmenter_tensor_name,
)
from vividmed.models.segmenter.configuration_segmenter import InstanceSegmenterConfig, SegmenterConfig
from vividmed.models.segmenter.image_encoder import group_images
from vividmed.models.segmenter.instance_loss import InstanceLoss
from vividmed.models.segmenter.losses import LossOutput, MaskLoss
from vividmed.models.segmenter.mask_decoder import DecodedGroup, DecoderGroup, low_res_shape
from vividmed.models.segmenter.matching import NO_MATCH
from vividmed.models.segmenter.modeling_segmenter import InstanceSegmenter, Segmenter

# Published names of loss components, less the "-focal-GAMMA" or "-ce" that the name of a focal loss ends in.
COMPONENTS = {
    "dice": "dice",
    "": "focal",
    "instance-disc": "score",
    "instance-disc-pos": "score_positive",
    "instance-disc-neg": "score_negative",
    "instance-box-l1": "box_l1",
    "instance-box-giou": "box_giou",
    "instance-mask-pos-dice": "mask_dice",
    "instance-mask-pos": "mask_focal",
    "instance-mask-neg-dice": "negative_mask_dice",
    "instance-mask-neg": "negative_mask_focal",
}
MASK_LOSS_ARGUMENTS = ("dice_weight", "focal_weight", "focal_gamma", "focal_alpha")

SegmenterModel = TypeVar("SegmenterModel", Segmenter, InstanceSegmenter)


def segmenter(
    golden: Golden,
    weights: dict[str, torch.Tensor],
    prefix: str,
    model_class: type[SegmenterModel],
    config_class: type[SegmenterConfig],
) -> SegmenterModel:
    """A segmenter of ours with the published weights under ``prefix``."""
    sizes = golden.config["sam"]
    config = config_class(
        hidden_size=sizes["embed_dim"],
        intermediate_size=int(sizes["encoder_mlp_ratio"] * sizes["embed_dim"]),
        num_hidden_layers=sizes["encoder_num_layers"],
        num_attention_heads=sizes["encoder_num_heads"],
        patch_size=sizes["patch_size"],
        position_grid=sizes["pos_embed_shape"],
        decoder_intermediate_size=sizes["two_way_mlp_dim"],
        decoder_num_hidden_layers=sizes["two_way_depth"],
        decoder_num_attention_heads=sizes["two_way_num_heads"],
        num_instance_queries=sizes["sem_num_instances" if prefix == "sam." else "ins_num_instances"],
    )
    model = model_class(config).eval()
    load_segmenter_weights(model, weights, prefix=prefix)
    return model


def decode(
    model: Segmenter | InstanceSegmenter, image: torch.Tensor, prompts: torch.Tensor, patch_size: list[int]
) -> tuple[torch.Tensor, DecoderGroup, DecodedGroup]:
    """Embeddings of one image and what the decoder was given and made of them."""
    (embeddings,) = model.image_encoder(group_images({0: image}, [patch_size]))
    keys, positions = model.prompt_encoder(embeddings)
    images = torch.zeros(len(prompts), dtype=torch.long)
    group = DecoderGroup(prompts, keys, images, positions, patch_size[0])
    (decoded,) = model.mask_decoder([group])
    return embeddings[0], group, decoded


@case("04_sam")
@torch.no_grad()
def semantic(golden: Golden) -> Iterator[Check]:
    tensors, patch_sizes = golden.tensors("04_sam"), golden.case("04_sam")["patch_size"]
    model = segmenter(golden, golden.weights, "sam.", Segmenter, SegmenterConfig)
    images = golden.images(tensors)
    prompts = [tensors[f"text_embedding.{i}"] for i in range(len(images))]
    for i, (image, prompt, patch_size) in enumerate(zip(images, prompts, patch_sizes, strict=True)):
        embedding, group, decoded = decode(model, image, prompt, patch_size)
        low = model.mask_decoder.draw(decoded.states[:, :1], prompt, decoded.embeddings, patch_size[0])[:, 0]
        yield close(f"image_embedding.{i}", embedding, tensors[f"image_embedding.{i}"])
        yield close(f"dense_pe.{i}", group.positions, tensors[f"dense_pe.{i}"])
        yield close(f"mask_tokens_out.{i}", decoded.states, tensors[f"mask_tokens_out.{i}"])
        yield close(f"masks_low_res.{i}", low, tensors[f"masks_low_res.{i}"])
        yield equal(f"low_res_shape.{i}", low_res_shape(image.shape[1:], patch_size), tuple(low.shape[1:]))
    for i, masks in enumerate(model(images, prompts, patch_sizes).masks):
        published = tensors[f"masks_logits.{i}"]
        # Without prompts the published code gives (0,); ours keeps the image's axes.
        yield close(
            f"masks_logits.{i}", masks, published if len(prompts[i]) else masks.new_zeros(masks.shape)
        )
        yield equal(f"masks_logits.{i} empty", masks.numel() == 0, published.numel() == 0)


@case("04_isam")
@torch.no_grad()
def instances(golden: Golden) -> Iterator[Check]:
    description, tensors, inputs = golden.case("04_isam"), golden.tensors("04_isam"), golden.tensors("04_sam")
    model = segmenter(golden, golden.weights, "isam_model.", InstanceSegmenter, InstanceSegmenterConfig)
    images = [inputs[f"image.{j}"] for j in description["source"]]
    prompts = [inputs[f"text_embedding.{j}"] for j in description["source"]]
    output = model(images, prompts, description["patch_size"], output_masks=True)
    for i in range(len(images)):
        yield close(f"boxes.{i}", output.boxes[i], tensors[f"boxes.{i}"][:, 1:])
        yield close(f"disc_logit.{i}", output.logits[i], tensors[f"disc_logit.{i}"])
        yield close(
            f"masks_low_res.{i}", output.low_res_masks[i], tensors[f"masks_logits_low_res.{i}"][:, 1:]
        )

    # The published outputs begin with the token of the whole target, which its loss drops; ours leave it out. The
    # weights that draw its mask make a segmenter of the other form.
    heads = ("isam_model.box_head.", "isam_model.disc_head.")
    body = {name: tensor for name, tensor in golden.weights.items() if not name.startswith(heads)}
    whole = segmenter(golden, body, "isam_model.", Segmenter, SegmenterConfig)
    for i, (image, prompt, patch_size) in enumerate(
        zip(images, prompts, description["patch_size"], strict=True)
    ):
        _, _, decoded = decode(whole, image, prompt, patch_size)
        state = decoded.states[:, :1]
        low = whole.mask_decoder.draw(state, prompt, decoded.embeddings, patch_size[0])
        yield close(f"masks_low_res.{i} token 0", low, tensors[f"masks_logits_low_res.{i}"][:, :1])
        yield close(f"boxes.{i} token 0", model.box_head(state).sigmoid(), tensors[f"boxes.{i}"][:, :1])


def components(prefix: str, ours: LossOutput, published: dict[str, float]) -> Iterator[Check]:
    """Compare the published components (names such as ``instance-disc-focal-2.0``) but the total.

    The published code logs the masks of negative queries also where they are not trained; ours computes what it uses.
    """
    for name, value in published.items():
        if name == "total":
            continue
        key = COMPONENTS[re.sub(r"(^|-)(focal-[\d.]+|ce)$", "", name)]
        if key in ours.components or not key.startswith("negative_mask"):
            yield close(f"{prefix} {name}", ours.components[key], torch.tensor(value))


@case("05_dice_focal")
def dice_focal(golden: Golden) -> Iterator[Check]:
    tensors = golden.tensors("05_dice_focal")
    for i, settings in enumerate(golden.case("05_dice_focal")["cases"]):
        criterion = MaskLoss(**{name: settings[name] for name in MASK_LOSS_ARGUMENTS})
        logits = tensors[f"{i}.input"].requires_grad_()
        targets = None if settings["target_none"] else tensors[f"{i}.target"]
        loss = criterion(logits, targets)
        loss.total.backward()
        yield close(f"{i} total", loss.total, torch.tensor(settings["result"]["total"]))
        yield from components(f"{i}", loss, settings["result"])
        yield close(f"{i} gradient", logits.grad, tensors[f"{i}.grad"])

        empty = torch.zeros_like(logits) if targets is None else targets
        per_sample = {name: value.mean(1) for name, value in criterion.per_mask(logits, empty).items()}
        per_sample["total"] = sum(criterion.weights[name] * value for name, value in per_sample.items())
        for name, tensor in tensors.items():
            if name.startswith(f"{i}.per_sample."):
                published = name.removeprefix(f"{i}.per_sample.")
                key = "focal" if published.startswith(("focal", "ce")) else published
                yield close(name, per_sample[key], tensor)


@case("05_isam_loss")
def instance_loss(golden: Golden) -> Iterator[Check]:
    tensors = golden.tensors("05_isam_loss")
    for i, settings in enumerate(golden.case("05_isam_loss")["settings"]):
        given = {
            name.removeprefix(f"{i}."): tensor for name, tensor in tensors.items() if name.startswith(f"{i}.")
        }
        boxes, logits = given["boxes"].requires_grad_(), given["disc_logit"].requires_grad_()
        spans = given["index_offsets"].tolist()
        masks = {}
        if settings["with_masks"]:
            masks = {
                "masks": given["masks_logits"][:, 1:],
                "low_res_masks": given["masks_logits_ds"][:, 1:],
                "target_masks": [given["masks_label"][start:end] for start, end in spans],
            }
        criterion = InstanceLoss(
            score_weight=settings["disc_weight"],
            box_l1_weight=settings["box_l1_weight"],
            box_giou_weight=settings["box_giou_weight"],
            focal_gamma=settings["disc_focal_gamma"],
            focal_alpha=settings["disc_focal_alpha"],
            match_focal=not settings["match_ce"],
            negative_masks=settings["use_neg_mask"],
        )
        loss = criterion(
            boxes[:, 1:], logits, [given["boxes_label"][start:end] for start, end in spans], **masks
        )
        loss.total.backward()
        yield close(f"{i} loss", loss.total, given["loss"])
        yield from components(f"{i}", loss, settings["log"])
        for name, tensor in (("grad_boxes", boxes), ("grad_disc", logits)):
            if name in given:
                yield close(f"{i} {name}", tensor.grad, given[name])
        for target, match in enumerate(loss.matches):
            published = given["match"][target]
            yield equal(
                f"{i} match {target}", match.where(match == NO_MATCH, match + spans[target][0]), published
            )


def fitted(tensors: dict[str, torch.Tensor], index: int, part: str, **sizes: list[int]) -> Iterator[Check]:
    """Compare every tensor of one loading with what ours makes of it; ``part`` is where the published names stand."""
    before = f"{index}.before."
    for source in [name.removeprefix(before) for name in tensors if name.startswith(before)]:
        # After loading SegVol's names have become the published ones.
        published = source.replace("patch_embeddings.1.", "proj.").removesuffix(".weight")
        published = published if published.endswith("bias") else f"{published}.weight"
        after = tensors[f"{index}.after.{published}"]
        present = tensors.get(f"{index}.present.{source}", torch.zeros_like(after))
        name = segmenter_tensor_name(part + source, instance=False)
        ours = fit_segmenter_tensor(name, tensors[before + source], present, **sizes)
        yield close(f"{index} {name}", ours, after)
        yield equal(
            f"{index} {name} from the published name",
            name,
            segmenter_tensor_name(part + published, instance=False),
        )


@case("06_segvol_inflate")
def segvol_patches(golden: Golden) -> Iterator[Check]:
    for i, settings in enumerate(golden.case("06_segvol_inflate")["settings"]):
        yield from fitted(
            golden.tensors("06_segvol_inflate"),
            i,
            "image_encoder.patch_embedding.",
            patch_size=settings["pt_patch_size"],
            position_grid=settings["pt_pos_embed_shape"],
        )


@case("06_mask_decoder_load")
def segvol_mask_decoder(golden: Golden) -> Iterator[Check]:
    for i in range(len(golden.case("06_mask_decoder_load")["settings"])):
        yield from fitted(golden.tensors("06_mask_decoder_load"), i, "mask_decoder.")
