"""Activations of a training step, measured on one layer of each kind with tensors that have shapes but no data."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from vividmed.models.context import DecoderContext
from vividmed.models.experts import TokenRouting
from vividmed.models.language_loss import CHUNK_TOKENS
from vividmed.models.layer_stack import stream_dtype
from vividmed.models.segmenter.image_encoder import ImageGroup
from vividmed.models.segmenter.losses import MaskLoss
from vividmed.models.segmenter.mask_decoder import INSTANCE_TOKENS, TARGET_TOKEN, DecoderGroup
from vividmed.models.vision import ImageLengths
from vividmed.training.estimation.tracking import AcceleratorAutocast, BlockCost, measure_block

PHRASES = 8
"""Phrases per sample that the estimate counts on, in stages that ground."""


@dataclass(frozen=True)
class BatchShape:
    """The largest batch of a run.

    Attributes:
        samples: number of samples per process.
        tokens: longest sequence, image tokens included.
        image_tokens: visual tokens per image, after pooling.
        patches: patches per image, before pooling.
        patch_size: (z, y, x) of them, in voxels.
    """

    samples: int
    tokens: int
    image_tokens: int
    patches: int
    patch_size: tuple[int, int, int]


@dataclass(frozen=True)
class Stack:
    """Equal blocks one after the other."""

    name: str
    block: BlockCost
    count: int = 1
    is_checkpointed: bool = False

    @property
    def kept(self) -> int:
        """Bytes that each block leaves for the backward pass."""
        return self.block.output if self.is_checkpointed else self.block.stored


def measure_stacks(
    model: nn.Module,
    counts: dict[str, int],
    batch: BatchShape,
    *,
    checkpointed: bool,
    autocast: bool,
    gpu: bool,
) -> list[Stack]:
    """Costs of all parts of the model, in the order of the forward pass.

    Args:
        model: with at least one layer of each kind, made under the fake tensor mode that is active.
        counts: number of layers of the whole model, ``vision`` and ``decoder``.
        batch: the largest batch.
        checkpointed: whether layers are computed again in the backward pass.
        autocast: whether products are computed in bfloat16 while weights may be float32.
        gpu: whether it runs on an accelerator.
    """
    with ExitStack() as modes:
        if autocast:
            modes.enter_context(torch.autocast("cpu", torch.bfloat16, cache_enabled=False))
            if gpu:
                modes.enter_context(AcceleratorAutocast())
        return list(_stacks(model, counts, batch, checkpointed))


def _stacks(model: Any, counts: dict[str, int], batch: BatchShape, checkpointed: bool) -> Iterator[Stack]:
    tower, decoder = model.model.vision, model.model
    patches = batch.samples * (batch.patches + 1)
    visual = batch.samples * (batch.image_tokens + 2)
    images = torch.empty(patches, prod(batch.patch_size) * 3)

    def measured(
        name: str,
        run: Callable[[torch.Tensor], torch.Tensor],
        inputs: torch.Tensor,
        module: nn.Module,
        **options: Any,
    ) -> tuple[Stack, torch.Tensor]:
        cost, output = measure_block(run, inputs, list(module.parameters()))
        return Stack(name, cost, **options), output

    # Patches are a product with the kernel, which the convolution does not copy the image for.
    embedding = tower.patch_embedding
    kernel = embedding.proj.weight

    def embed_patches(pixels: torch.Tensor) -> torch.Tensor:
        weight = kernel.flatten(1)[:, : pixels.shape[1]]
        return F.linear(pixels.to(weight.dtype), weight, embedding.proj.bias) + embedding.cls_embedding.weight

    stack, tokens = measured("vision tower", embed_patches, images, embedding)
    yield stack
    layer = tower.transformer.layers[0]
    tokens = _differentiable(tokens.to(stream_dtype(layer.mlp.fc1.weight, tokens)), layer)
    lengths = ImageLengths([batch.patches + 1] * batch.samples)
    stack, tokens = measured(
        "vision tower",
        lambda states: layer(states, lengths),
        tokens,
        layer,
        count=counts["vision"],
        is_checkpointed=checkpointed,
    )
    yield stack
    stack, features = measured(
        "vision tower", lambda states: tower.linear_proj(states[:visual]), tokens, tower.linear_proj
    )
    yield stack

    total = batch.samples * batch.tokens
    ids = torch.zeros(batch.samples, batch.tokens, dtype=torch.long)
    places = torch.zeros(len(features), dtype=torch.long)

    def place(images: torch.Tensor) -> torch.Tensor:
        flat = decoder.embed_tokens(ids).flatten(0, 1)
        return flat.index_copy(0, places, images.to(flat.dtype))

    stack, tokens = measured("embeddings", place, features, decoder.embed_tokens)
    yield stack
    layer = decoder.layers[0]
    tokens = tokens.to(stream_dtype(layer.mlp.language_mlp.down_proj.weight, tokens))
    context = _context(model, batch, total, tokens.dtype)
    tokens = _differentiable(tokens, layer)
    stack, tokens = measured(
        "decoder",
        lambda states: layer(states, context),
        tokens,
        layer,
        count=counts["decoder"],
        is_checkpointed=checkpointed,
    )
    yield stack
    supervised = max(1, min(CHUNK_TOKENS, batch.samples * (batch.tokens - batch.image_tokens)))
    targets = torch.zeros(supervised, dtype=torch.long)

    def loss(states: torch.Tensor) -> torch.Tensor:
        logits = model.lm_head(decoder.norm(states)[:supervised]).float()
        return F.cross_entropy(logits, targets, reduction="none").sum()

    stack, _ = measured("head and loss", loss, tokens, nn.ModuleList([decoder.norm, model.lm_head]))
    yield stack


def measure_segmenters(model: Any, batch: BatchShape) -> list[Stack]:
    """Costs of the segmenters, in float32; each image has :data:`PHRASES` phrases."""
    stacks = []
    depth, height, width = _volume(batch)
    for name in ("segmenter", "instance_segmenter"):
        segmenter = getattr(model, name, None)
        if segmenter is None:
            continue
        images = torch.empty(batch.samples, segmenter.config.num_channels, depth, height, width)

        def run(
            prompts: torch.Tensor, segmenter: Any = segmenter, name: str = name, images: Any = images
        ) -> Any:
            group = ImageGroup(list(range(batch.samples)), images, batch.patch_size)
            (encoded,) = segmenter.image_encoder([group])
            embeddings, positions = segmenter.prompt_encoder(encoded)
            rows = torch.zeros(len(prompts), dtype=torch.long)
            # The decoder asks for the last image, which a tensor without data cannot tell.
            rows.max = lambda: batch.samples - 1  # type: ignore[method-assign,assignment]
            decoded_group = DecoderGroup(
                prompts, embeddings, images=rows, positions=positions, patch_depth=batch.patch_size[0]
            )
            if name == "instance_segmenter":
                (decoded,) = segmenter.mask_decoder([decoded_group], INSTANCE_TOKENS)
                return segmenter.box_head(decoded.states).sum() + segmenter.score_head(decoded.states).sum()
            (decoded,) = segmenter.mask_decoder([decoded_group], TARGET_TOKEN)
            low = segmenter.mask_decoder.draw(
                decoded.states, prompts, decoded.embeddings, batch.patch_size[0]
            )
            masks = F.interpolate(low.float(), images.shape[2:], mode="trilinear", align_corners=False)[:, 0]
            return MaskLoss()(masks, torch.zeros(masks.shape, dtype=torch.bool)).total

        prompts = torch.empty(batch.samples * PHRASES, segmenter.config.hidden_size).requires_grad_()
        cost, _ = measure_block(run, prompts, list(segmenter.parameters()))
        stacks.append(Stack("segmenters", cost))
    return stacks


def _volume(batch: BatchShape) -> tuple[int, int, int]:
    """An image of the batch's number of patches, as square as possible."""
    side = max(1, int(batch.patches**0.5))
    return batch.patch_size[0], side * batch.patch_size[1], -(-batch.patches // side) * batch.patch_size[2]


def _context(model: Any, batch: BatchShape, total: int, dtype: torch.dtype) -> DecoderContext:
    order = torch.zeros(total, dtype=torch.long)
    shape = (batch.samples, batch.tokens)
    routing = TokenRouting(shape, shape, order, order, batch.samples * (batch.image_tokens + 1))
    positions = torch.zeros(shape, dtype=torch.long)
    mask = torch.zeros(batch.samples, 1, batch.tokens, batch.tokens, dtype=torch.bool)
    return DecoderContext(routing, model.model.rotary_emb(positions, dtype), attention_mask=mask)


def _differentiable(tokens: torch.Tensor, layer: nn.Module) -> torch.Tensor:
    """The input of a stack's later layers, which depends on the weights of the earlier ones."""
    trained = any(parameter.requires_grad for parameter in layer.parameters())
    return tokens.detach().requires_grad_(tokens.requires_grad or trained)


@contextmanager
def without_data() -> Iterator[None]:
    """Make tensors that have shapes and types, but take no memory."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        yield


def place_on_cpu(model: nn.Module) -> None:
    """Move a model from the meta device to the CPU, inside :func:`without_data`, where that takes no memory.

    Autocast and the choice of kernels go by the device. ``Module.to_empty`` does not work on tensors without data.
    """
    placed: dict[int, Any] = {}
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in list(tensors.items()):
                if tensor is None:
                    continue
                if id(tensor) not in placed:
                    empty = torch.empty(tensor.shape, dtype=tensor.dtype)
                    is_parameter = isinstance(tensor, nn.Parameter)
                    placed[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty
                tensors[name] = placed[id(tensor)]
