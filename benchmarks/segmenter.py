"""The segmenter compared with its earlier code, in one run with equal weights.

    python -m benchmarks.segmenter [--rounds 15]

A grey volume of 16 x 128 x 128 with eight prompts, 192 wide, six layers, patches of 2 x 16 x 16. The earlier code
embedded three equal channels, copied and projected an image once per prompt for every attention between tokens and image,
computed the final states of all tokens, wrote activations to new memory, upscaled all prompts together by transposed
convolutions with channels first, and interpolated along depth even where depth did not change. Both draw the same masks,
which the program checks. They take turns. Times are CPU seconds of one thread, because other programs may share the
machine.
"""

import argparse
import sys

import torch
import torch.nn.functional as F

from benchmarks.timing import alternate, median, ratio
from vividmed.models.segmenter import image_attention, image_encoder, modeling_segmenter
from vividmed.models.segmenter.configuration_segmenter import SegmenterConfig
from vividmed.models.segmenter.mask_decoder import ALL_TOKENS, MaskDecoder, depth_upscaling
from vividmed.models.segmenter.modeling_segmenter import Segmenter

SIZE, PATCH, PROMPTS = (16, 128, 128), (2, 16, 16), 8
SIZES = {
    "hidden_size": 192,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "intermediate_size": 768,
    "patch_size": PATCH,
    "position_grid": (8, 8, 8),
    "decoder_intermediate_size": 768,
    "decoder_num_attention_heads": 6,
}
TARGET_SECONDS = 0.08
TOLERANCE = 2e-4


class EarlierDecoder(MaskDecoder):
    """The decoder as it was: a copy of the image per prompt from the start, channels first in the upscaling."""

    def forward(self, groups, read=ALL_TOKENS):
        expanded = [
            group._replace(
                embeddings=group.embeddings.index_select(0, group.images),
                images=torch.arange(len(group.prompts), device=group.images.device),
            )
            for group in groups
        ]
        decoded = super().forward(expanded)
        return [group._replace(states=group.states[:, read]) for group in decoded]

    def draw(self, states, prompts, embeddings, patch_depth):
        factor = depth_upscaling(patch_depth)
        upscaling = self.upscaling
        features = _transposed(upscaling.conv1, embeddings, factor >= 2)
        features = F.gelu(upscaling.norm(features.movedim(1, -1)).movedim(-1, 1))
        features = F.gelu(_transposed(upscaling.conv2, features, factor == 4))
        filters = self.mask_head(states) + self.prompt_head(prompts)[:, None]
        return (filters @ features.flatten(2)).unflatten(2, features.shape[2:])


def _transposed(conv: torch.nn.ConvTranspose3d, input: torch.Tensor, upsample_depth: bool) -> torch.Tensor:
    if upsample_depth:
        return F.conv_transpose3d(input, conv.weight, conv.bias, stride=2)
    return F.conv_transpose3d(input, conv.weight.mean(dim=2, keepdim=True), conv.bias, stride=(1, 2, 2))


def _interpolated(low_res: torch.Tensor, group: modeling_segmenter.ImageGroup) -> torch.Tensor:
    return F.interpolate(low_res, group.images.shape[2:], mode="trilinear", align_corners=False)


def earlier_twin(segmenter: Segmenter) -> Segmenter:
    """A segmenter of the earlier code with the same weights."""
    twin = Segmenter(segmenter.config)
    twin.mask_decoder = EarlierDecoder(segmenter.config)
    twin.load_state_dict(segmenter.state_dict())
    return twin.eval()


def main() -> int:
    """Compare, print; the exit status is 1 if the masks differ."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15, help="timed rounds after one warm-up (default: 15)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    ours = Segmenter(SegmenterConfig(**SIZES)).eval()
    earlier = earlier_twin(ours)
    image = torch.rand(1, *SIZE).expand(3, -1, -1, -1)  # as the processor makes it
    others = [torch.randn(PROMPTS, ours.config.hidden_size)], [PATCH]
    interpolate, are_plain = modeling_segmenter._interpolate, image_attention._are_plain
    gelu = image_encoder.gelu

    @torch.no_grad()
    def run_ours() -> torch.Tensor:
        return ours([image], *others).masks[0]

    @torch.no_grad()
    def run_earlier() -> torch.Tensor:
        modeling_segmenter._interpolate, image_encoder.gelu = _interpolated, F.gelu
        image_attention._are_plain = lambda *_: False  # project every row of every prompt's image
        try:
            return earlier([image.contiguous()], *others).masks[0]
        finally:
            modeling_segmenter._interpolate, image_attention._are_plain = interpolate, are_plain
            image_encoder.gelu = gelu

    difference = float((run_ours() - run_earlier()).abs().max())
    times = alternate({"ours": run_ours, "earlier": run_earlier}, options.rounds)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, float32, {options.rounds} rounds")
    print(
        f"ours {median(times, 'ours'):.3f} s (target <= {TARGET_SECONDS:.2f} where the earlier code takes 0.106), "
        f"earlier {median(times, 'earlier'):.3f} s, ratio {ratio(times, 'ours', 'earlier'):.3f} "
        f"(target <= {TARGET_SECONDS / 0.106:.2f})"
    )
    print(f"largest difference of mask logits: {difference:.1e}")
    return int(difference > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
