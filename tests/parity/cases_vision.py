"""Vision tower: a ragged list of 2D and 3D images in one call."""

from collections.abc import Iterator

import torch

from tests.parity.harness import Check, Golden, case, close
from tests.parity.models import published_model


@case("01_vision")
@torch.no_grad()
def vision(golden: Golden) -> Iterator[Check]:
    tower = published_model(golden).model.vision
    description, tensors = golden.case("01_vision"), golden.tensors("01_vision")
    images, patch_sizes = golden.images(tensors), description["patch_size"]

    embedded, grids = tower.patch_embedding(images, patch_sizes)
    lengths = [1 + d * h * w for d, h, w in grids]
    transformed = tower.transformer(embedded, lengths)
    tokens = tower(images, patch_sizes, description["pool_size"])
    for i, (ours_embedded, ours_transformed) in enumerate(
        zip(embedded.split(lengths), transformed.split(lengths), strict=True)
    ):
        yield close(f"patch_embed.{i}", ours_embedded, tensors[f"patch_embed.{i}"])
        yield close(f"transformer_out.{i}", ours_transformed, tensors[f"transformer_out.{i}"])
        yield close(f"tokens.{i}", tokens[i], tensors[f"tokens.{i}"])
