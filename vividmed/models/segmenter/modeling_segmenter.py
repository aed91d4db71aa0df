"""Promptable 3D segmenters: prompt vectors to masks, or to boxes, scores and masks of instances (VividMed, 3.3)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from vividmed.errors import VividMedError
from vividmed.models.depth import DepthAdaptiveConv3d
from vividmed.models.loading import CheckedPreTrainedModel
from vividmed.models.segmenter.configuration_segmenter import InstanceSegmenterConfig, SegmenterConfig
from vividmed.models.segmenter.image_encoder import (
    ImageGroup,
    PositionEmbedding,
    SegmenterImageEncoder,
    group_images,
)
from vividmed.models.segmenter.mask_decoder import (
    INSTANCE_TOKENS,
    MLP,
    TARGET_TOKEN,
    DecodedGroup,
    DecoderGroup,
    MaskDecoder,
    low_res_shape,
)
from vividmed.models.segmenter.prompt_encoder import (
    FourierPositionEncoding,
    PromptEncoder,
    missing_frequencies,
)
from vividmed.models.segmenter.smooth_initialization import smooth_kernels, smooth_positions


@dataclass
class SegmenterOutput(ModelOutput):
    """Masks of a batch.

    Attributes:
        masks: for each image the mask logits (n, D, H, W) of its n prompts in float32, on the grid of the image.
        graph_anchor: a scalar zero that depends on every parameter. Added to the loss, it gives each parameter a
            gradient even where the batch had no prompt, which DDP and FSDP need.
    """

    masks: list[torch.Tensor] | None = None
    graph_anchor: torch.Tensor | None = None


@dataclass
class InstanceSegmenterOutput(ModelOutput):
    """Instances of a batch; Q is ``num_instance_queries``.

    Attributes:
        boxes: for each image (n, Q, 6) in float32: centre and size (z, y, x, d, h, w) as fractions of the image that
            the segmenter saw. Boxes of 2D images are centred at z 0.5 with depth 1 once trained.
        logits: for each image (n, Q) in float32; their sigmoid is the score of the instance.
        masks: for each image mask logits (n, Q, D, H, W) in float32, when asked for.
        low_res_masks: for each image the logits (n, Q, d', 4h, 4w) before interpolation, when asked for.
        graph_anchor: as in :class:`SegmenterOutput`.
    """

    boxes: list[torch.Tensor] | None = None
    logits: list[torch.Tensor] | None = None
    masks: list[torch.Tensor] | None = None
    low_res_masks: list[torch.Tensor] | None = None
    graph_anchor: torch.Tensor | None = None


class SegmenterPreTrainedModel(CheckedPreTrainedModel):
    """Weights, loading and the encode-and-decode pass that both segmenters share."""

    config: SegmenterConfig
    base_model_prefix = "segmenter"
    main_input_name = "images"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["SegmenterEncoderLayer", "TwoWayLayer"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    def __init__(self, config: SegmenterConfig):
        super().__init__(config)
        self.image_encoder = SegmenterImageEncoder(config)
        self.prompt_encoder = PromptEncoder(config.hidden_size)
        self.mask_decoder = MaskDecoder(config)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise as torch does, where published training started, but position embeddings with small values.

        Raises:
            VividMedError: trained weights are loaded without the Fourier frequencies that they belong to.
        """
        if isinstance(module, nn.Linear | nn.Conv3d | nn.ConvTranspose3d):
            if isinstance(module, DepthAdaptiveConv3d) and self.config.smooth_initializer:
                init.copy_(module.weight, smooth_kernels(module.weight.shape))
            else:
                init.kaiming_uniform_(module.weight, a=math.sqrt(5))
            if module.bias is not None:
                bound = 1 / math.sqrt(module.weight[0].numel())
                init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight)
        elif isinstance(module, PositionEmbedding):
            spread = self.config.position_initializer_range
            if self.config.smooth_initializer:
                init.copy_(module.weight, spread * smooth_positions(module.weight.shape))
            else:
                init.normal_(module.weight, std=spread)
        elif isinstance(module, FourierPositionEncoding):
            trained = _is_loaded(self.prompt_encoder.no_mask_embedding.weight)
            if trained and not _is_loaded(module.frequencies):
                raise VividMedError(missing_frequencies("prompt_encoder."))
            init.normal_(module.frequencies)

    def _decode(
        self,
        images: Sequence[torch.Tensor],
        prompts: Sequence[torch.Tensor],
        patch_sizes: Sequence[Sequence[int]],
        read: slice,
    ) -> list[tuple[ImageGroup, DecoderGroup, DecodedGroup]]:
        """Encode the images that have prompts, each once, and decode all prompts; ``read`` are the mask tokens needed.

        Without any prompt, an empty batch takes the same path, so that every layer runs and every parameter stays in
        the graph.
        """
        prompts = [prompt.to(self.device, self.dtype) for prompt in prompts]
        prompted = {
            index: image.to(self.device, self.dtype)
            for index, (image, prompt) in enumerate(zip(images, prompts, strict=True))
            if len(prompt)
        }
        image_groups = group_images(prompted, patch_sizes) or [self._no_images()]
        decoder_groups = []
        for group, embeddings in zip(image_groups, self.image_encoder(image_groups), strict=True):
            embeddings, positions = self.prompt_encoder(embeddings)
            counts = torch.tensor([len(prompts[index]) for index in group.indices], dtype=torch.long)
            rows = torch.arange(len(group.indices)).repeat_interleave(counts).to(self.device)
            # If there is no prompt at all, the empty ones keep their projection in the graph.
            group_prompts = [prompts[index] for index in group.indices] or prompts
            decoder_groups.append(
                DecoderGroup(
                    prompts=torch.cat([embeddings.new_zeros(0, self.config.hidden_size), *group_prompts]),
                    embeddings=embeddings,
                    images=rows,
                    positions=positions,
                    patch_depth=group.patch_size[0],
                )
            )
        return list(zip(image_groups, decoder_groups, self.mask_decoder(decoder_groups, read), strict=True))

    def _no_images(self) -> ImageGroup:
        size = self.config.patch_size
        images = torch.zeros(0, self.config.num_channels, *size, device=self.device, dtype=self.dtype)
        return ImageGroup(indices=[], images=images, patch_size=size)


class Segmenter(SegmenterPreTrainedModel):
    """Draws one mask for each prompt: the semantic branch of VividMed's localisation, a SegVol with other prompts.

    Example:
        >>> segmenter = Segmenter(SegmenterConfig.tiny())
        >>> volume, prompts = torch.rand(3, 8, 64, 64), torch.randn(2, 96)
        >>> segmenter([volume], [prompts], [(4, 16, 16)]).masks[0].shape
        torch.Size([2, 8, 64, 64])
    """

    def __init__(self, config: SegmenterConfig):
        super().__init__(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        images: Sequence[torch.Tensor],
        prompts: Sequence[torch.Tensor],
        patch_sizes: torch.Tensor | Sequence[Sequence[int]],
    ) -> SegmenterOutput:
        """Segment a ragged batch.

        Args:
            images: each (3, D, H, W), values in [0, 1]; sizes are multiples of the image's patch size. May be empty.
                An expanded channel (stride 0) is read once.
            prompts: for each image (n, hidden_size); n may be 0, and the image then costs nothing.
            patch_sizes: (N, 3), (z, y, x) of each image; z divides the configured depth, y and x equal the
                configured ones.

        Raises:
            VividMedError: the lists differ in length, or a tensor does not fit the configuration.
        """
        patch_sizes = _checked_patch_sizes(images, prompts, patch_sizes, self.config)
        masks = [torch.zeros(0, *image.shape[1:], device=self.device) for image in images]
        anchors = []
        for image_group, group, decoded in self._decode(images, prompts, patch_sizes, TARGET_TOKEN):
            low = self.mask_decoder.draw(
                decoded.states, group.prompts, decoded.embeddings, group.patch_depth
            ).float()
            full = _interpolate(low, image_group)
            anchors.append(low[:0].sum())
            _scatter(full[:, 0], prompts, image_group.indices, masks)
        return SegmenterOutput(masks=masks, graph_anchor=torch.stack(anchors).sum())


class InstanceSegmenter(SegmenterPreTrainedModel):
    """Finds a set of instances for each prompt: boxes, scores and, if asked for, masks.

    The published recipe trains boxes and scores only; masks then stay as the initial weights draw them. Freeze
    :meth:`mask_parameters` where masks are not trained.
    """

    config: InstanceSegmenterConfig
    base_model_prefix = "instance_segmenter"

    def __init__(self, config: InstanceSegmenterConfig):
        super().__init__(config)
        size = config.hidden_size
        self.box_head = MLP(size, size, size, 6)
        self.score_head = MLP(size, size, 1)
        self.post_init()

    def mask_parameters(self) -> list[nn.Parameter]:
        """The parameters that only masks depend on."""
        decoder = self.mask_decoder
        return [
            parameter
            for module in (decoder.upscaling, decoder.mask_head, decoder.prompt_head)
            for parameter in module.parameters()
        ]

    @can_return_tuple
    def forward(
        self,
        images: Sequence[torch.Tensor],
        prompts: Sequence[torch.Tensor],
        patch_sizes: torch.Tensor | Sequence[Sequence[int]],
        output_masks: bool = False,
    ) -> InstanceSegmenterOutput:
        """Find instances in a ragged batch; arguments and errors as in :meth:`Segmenter.forward`.

        Args:
            images: each (3, D, H, W).
            prompts: for each image (n, hidden_size).
            patch_sizes: (N, 3).
            output_masks: also draw the instances' masks.
        """
        patch_sizes = _checked_patch_sizes(images, prompts, patch_sizes, self.config)
        queries = self.config.num_instance_queries
        boxes = [torch.zeros(0, queries, 6, device=self.device) for _ in images]
        logits = [torch.zeros(0, queries, device=self.device) for _ in images]
        masks = [torch.zeros(0, queries, *image.shape[1:], device=self.device) for image in images]
        low_res_masks = [
            torch.zeros(0, queries, *low_res_shape(image.shape[1:], patch_size), device=self.device)
            for image, patch_size in zip(images, patch_sizes, strict=True)
        ]
        anchors = []
        for image_group, group, decoded in self._decode(images, prompts, patch_sizes, INSTANCE_TOKENS):
            instances = decoded.states
            group_boxes = self.box_head(instances).float().sigmoid()
            group_logits = self.score_head(instances)[..., 0].float()
            anchors += [group_boxes[:0].sum(), group_logits[:0].sum()]
            _scatter(group_boxes, prompts, image_group.indices, boxes)
            _scatter(group_logits, prompts, image_group.indices, logits)
            if output_masks:
                low = self.mask_decoder.draw(
                    instances, group.prompts, decoded.embeddings, group.patch_depth
                ).float()
                full = _interpolate(low, image_group)
                anchors.append(low[:0].sum())
                _scatter(low, prompts, image_group.indices, low_res_masks)
                _scatter(full, prompts, image_group.indices, masks)
        return InstanceSegmenterOutput(
            boxes=boxes,
            logits=logits,
            masks=masks if output_masks else None,
            low_res_masks=low_res_masks if output_masks else None,
            graph_anchor=torch.stack(anchors).sum(),
        )


def _interpolate(low_res: torch.Tensor, group: ImageGroup) -> torch.Tensor:
    size = group.images.shape[2:]
    if low_res.shape[2] == size[0] and low_res.numel():
        # Nothing changes along depth, and interpolation in the plane is several times as fast.
        flat = F.interpolate(low_res.flatten(1, 2), size[1:], mode="bilinear", align_corners=False)
        return flat.unflatten(1, low_res.shape[1:3])
    return F.interpolate(low_res, size, mode="trilinear", align_corners=False)


def _scatter(
    rows: torch.Tensor, prompts: Sequence[torch.Tensor], indices: Sequence[int], results: list[torch.Tensor]
) -> None:
    """Distribute the rows of a group to its images."""
    for index, image_rows in zip(
        indices, rows.split([len(prompts[index]) for index in indices]), strict=True
    ):
        results[index] = image_rows


def _checked_patch_sizes(
    images: Sequence[torch.Tensor],
    prompts: Sequence[torch.Tensor],
    patch_sizes: torch.Tensor | Sequence[Sequence[int]],
    config: SegmenterConfig,
) -> list[list[int]]:
    """Patch sizes as numbers, after a check that they fit the images and the prompts."""
    if not len(images) == len(prompts) == len(patch_sizes):
        raise VividMedError(
            f"{len(images)} images, {len(prompts)} prompt tensors and {len(patch_sizes)} patch sizes: "
            "pass one of each per image"
        )
    sizes = torch.as_tensor(patch_sizes, dtype=torch.long).view(-1, 3).tolist()
    for index, (image, prompt, size) in enumerate(zip(images, prompts, sizes, strict=True)):
        if image.ndim != 4 or image.shape[0] != config.num_channels:
            raise VividMedError(
                f"image {index} has shape {tuple(image.shape)}: the segmenter takes ({config.num_channels}, D, H, W)"
            )
        kernel = list(config.patch_size)
        if size[0] < 1 or kernel[0] % size[0] or size[1:] != kernel[1:]:
            raise VividMedError(
                f"image {index} has patch size {tuple(size)}: z must divide {kernel[0]}, y and x must be {kernel[1:]}"
            )
        if any(extent % patch for extent, patch in zip(image.shape[1:], size, strict=True)):
            raise VividMedError(
                f"image {index} has shape {tuple(image.shape)}: pad it to multiples of its patch size {tuple(size)}"
            )
        if prompt.ndim != 2 or prompt.shape[1] != config.hidden_size:
            raise VividMedError(
                f"the prompts of image {index} have shape {tuple(prompt.shape)}: "
                f"the segmenter takes (n, {config.hidden_size})"
            )
    return sizes


def _is_loaded(tensor: torch.Tensor) -> bool:
    """Whether ``from_pretrained`` has found the tensor in the checkpoint."""
    return getattr(tensor, "_is_hf_initialized", False)
