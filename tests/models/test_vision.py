"""The vision tower encodes each image of a mixed batch as it does alone, and keeps their order."""

import torch

from vividmed.models.configuration_vividmed import VividMedConfig
from vividmed.models.vision import VividMedVisionTower


def test_images_of_mixed_shapes_are_encoded_as_alone_and_in_their_order():
    torch.manual_seed(0)
    config = VividMedConfig.tiny(attn_implementation="sdpa")
    tower = VividMedVisionTower(config).eval()
    for parameter in tower.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    flat, wide, deep = ((1, 16, 16), (1, 2, 2)), ((1, 16, 16), (1, 1, 1)), ((4, 16, 16), (2, 2, 2))
    kinds = [(1, 32, 64, flat), (8, 32, 32, deep), (1, 32, 64, wide), (1, 32, 64, flat), (8, 32, 32, deep)]
    images = [torch.rand(3, *kind[:3]) for kind in kinds]
    patches, pools = zip(*(kind[3] for kind in kinds), strict=True)
    with torch.no_grad():
        together = tower(images, patches, pools)
        alone = [
            tower([image], [patch], [pool])[0]
            for image, patch, pool in zip(images, patches, pools, strict=True)
        ]
    assert [len(tokens) for tokens in together] == [4, 3, 10, 4, 3]
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other)
    assert not torch.allclose(together[0], together[3])
