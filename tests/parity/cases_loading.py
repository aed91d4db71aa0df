"""Loading 2D CogVLM weights: resampling, inflation in depth, and a whole checkpoint."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tests.parity.harness import Check, Golden, case, close, equal
from tests.parity.models import GROUNDING_PREFIXES, published_config
from vividmed.models.conversion.cogvlm import (
    inflate_patch_kernel,
    inflate_positions,
    load_cogvlm,
)
from vividmed.models.depth import resample


@case("06_resample")
def resampling(golden: Golden) -> Iterator[Check]:
    tensors = golden.tensors("06_resample")
    for i, setting in enumerate(golden.case("06_resample")["settings"]):
        ours = resample(tensors[f"{i}.before"], setting["shape"], conserve_sum=setting["scale"])
        yield close(f"{i}", ours, tensors[f"{i}.after"])


@case("06_cogvlm_inflate")
def inflation(golden: Golden) -> Iterator[Check]:
    tensors = golden.tensors("06_cogvlm_inflate")
    for i, setting in enumerate(golden.case("06_cogvlm_inflate")["settings"]):
        before = {
            name: tensors[f"{i}.before.{name}"] for name in ("proj.weight", "position_embedding.weight")
        }
        kernel = inflate_patch_kernel(before["proj.weight"], setting["patch_size"])
        yield close(f"{i}.proj.weight", kernel, tensors[f"{i}.after.proj.weight"])
        positions = before["position_embedding.weight"]
        yield close(f"{i}.cls_pos_embed.weight", positions[:1], tensors[f"{i}.after.cls_pos_embed.weight"])
        plane = positions[1:].unflatten(0, tuple(setting["pt_pos_embed_shape"]))
        inflated = inflate_positions(plane, setting["pos_embed_shape"])
        yield close(
            f"{i}.position_embedding.weight", inflated, tensors[f"{i}.after.position_embedding.weight"]
        )


@case("06_base_load")
def whole_checkpoint(golden: Golden) -> Iterator[Check]:
    override = golden.case("06_base_load")["vision_override"]
    base = golden.folder / "base_cogvlm"
    patch_embedding = load_file(base / "patch_embedding.safetensors")
    weights = {
        name: value
        for name, value in golden.weights.items()
        if not name.startswith((*GROUNDING_PREFIXES, "model.vision.patch_embedding."))
    }
    rows = golden.config["lm"]["base_vocab_size"]
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        weights[name] = weights[name][:rows].clone()

    with tempfile.TemporaryDirectory() as folder:
        save_file(weights | patch_embedding, Path(folder) / "model.safetensors")
        (Path(folder) / "config.json").write_text((base / "config.json").read_text())
        model, report = load_cogvlm(
            folder,
            patch_size=override["patch_size"],
            position_grid=override["pos_embed_shape"],
            dtype=torch.float32,
        )
    state_dict = model.state_dict()
    for name, published in golden.tensors("06_base_load").items():
        yield close(name, state_dict[name], published)
    for name, published in weights.items():
        if not name.endswith("inv_freq"):
            yield equal(name, state_dict[name][: len(published)], published)
    yield equal("config", model.config.to_diff_dict(), published_config(golden).to_diff_dict())
    yield equal("tensors ignored", all(name.endswith("inv_freq") for name in report.dropped), True)
