"""Our own models as localizers of pseudo-labels: a trained VividMed, or a segmenter of the alignment stages."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from vividmed.data.masks import Box
from vividmed.data.pseudo_labels.language_models import weights_of
from vividmed.data.pseudo_labels.localizers import Found, Localizer, Request
from vividmed.data.raw.mask_patch import MaskPatch
from vividmed.data.taxonomy import Taxonomy
from vividmed.errors import VividMedError
from vividmed.inference.grounding import ground_phrase
from vividmed.inference.loading import load_trained
from vividmed.models.phrases.forms import default_form
from vividmed.models.segmenter.modeling_segmenter import InstanceSegmenter
from vividmed.processing.boxes import clip_boxes, fractions_to_corners, round_boxes
from vividmed.processing.image_processing_vividmed import VividMedImageProcessor
from vividmed.training.alignment import PromptTableSegmenter
from vividmed.training.runs.checkpointing import newest_complete_checkpoint
from vividmed.training.segmenters import load_segmenter

LEAST_SCORE = 0.5
_AT_ONCE = 16
_WEIGHTS = "model.safetensors"


def open_localizer(name: str, *, least_score: float = LEAST_SCORE) -> Localizer:
    """Open a model of ours, whatever stage has trained it.

    Args:
        name: folder or Hub repository of a model, or the folder of a run of ``align-sam`` or ``align-isam``.
        least_score: lowest score of a box, and lowest probability that a mask must reach, to count as found.

    Raises:
        VividMedError: the model cannot be loaded, or has no segmenter.
    """
    checkpoint = newest_complete_checkpoint(Path(name)) if Path(name).is_dir() else None
    if checkpoint is not None and _has_prompts(checkpoint):
        return SegmenterLocalizer(Path(name), checkpoint, least_score=least_score)
    return ModelLocalizer(name, least_score=least_score)


class ModelLocalizer(Localizer):
    """A trained model with segmenters, asked for one target after the other.

    Args:
        name: folder or Hub repository.
        least_score: lowest score of a place.
    """

    def __init__(self, name: str, *, least_score: float = LEAST_SCORE) -> None:
        self.source = name
        self.name = f"model {Path(name).name}"
        self.least_score = least_score
        self._loaded: tuple[Any, Any] | None = None
        model, _ = self._load()
        if model.segmenter is None and model.instance_segmenter is None:
            raise VividMedError(
                f"--localizer-model {name}: has no segmenter; give a model of stage vg or grg, or the run of align-sam or "
                "align-isam"
            )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": None}

    @property
    def settings(self) -> dict[str, Any]:
        return {"name": self.name, "least_score": self.least_score, "weights": weights_of(self.source)}

    def locate(self, request: Request) -> Iterable[Found]:
        model, processor = self._load()
        for target in request.targets:
            phrase = ground_phrase(
                model,
                processor,
                request.image,
                target,
                score_threshold=self.least_score,
                default=default_form(request.image.size[0] > 1),
            )
            if phrase.mask is not None and (patch := MaskPatch.from_mask(target, phrase.mask)) is not None:
                if phrase.presence is None or phrase.presence >= self.least_score:
                    yield Found(target, patch=patch, score=phrase.presence)
                continue
            for corners, score in zip(phrase.boxes, phrase.scores, strict=True):
                if (box := _whole_box(torch.from_numpy(corners)[None], request.image.size)) is not None:
                    yield Found(target, box=box, score=float(score))

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            self._loaded = load_trained(self.source)
        return self._loaded


class SegmenterLocalizer(Localizer):
    """A segmenter of ``align-sam`` (masks) or ``align-isam`` (boxes), prompted by the table of its last checkpoint.

    The saved segmenter has no prompts: only the checkpoints of its run keep the table.

    Args:
        run: folder of the run.
        checkpoint: its checkpoint with the table.
        least_score: lowest score of a place.
    """

    def __init__(self, run: Path, checkpoint: Path, *, least_score: float = LEAST_SCORE) -> None:
        self.run = run
        self.checkpoint = checkpoint
        self.least_score = least_score
        self.name = f"segmenter {run.name}"
        self._loaded: tuple[PromptTableSegmenter, VividMedImageProcessor] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": None}

    @property
    def settings(self) -> dict[str, Any]:
        weights = weights_of(str(self.checkpoint))
        return {"name": self.name, "least_score": self.least_score, "weights": weights}

    @torch.no_grad()
    def locate(self, request: Request) -> Iterable[Found]:
        model, processor = self._load()
        image = request.image
        plan = processor.plan(image.size, image.affine if image.oriented else None)
        values = plan.apply(processor.scale_intensity(image)).clamp(0, 1).expand(3, -1, -1, -1)
        known = {target.name for target in Taxonomy.load()}
        targets = [target for target in request.targets if target in known]
        for start in range(0, len(targets), _AT_ONCE):
            names = targets[start : start + _AT_ONCE]
            output = model.segmenter([values], model.prompts_of([names]), [plan.patch_size])
            if isinstance(model.segmenter, InstanceSegmenter):
                scores = output.logits[0].sigmoid()
                boxes = fractions_to_corners(output.boxes[0].flatten(0, 1), plan.model_size)
                boxes = plan.boxes_to_original(boxes).unflatten(0, scores.shape)
                for target, of_target, score in zip(names, boxes, scores, strict=True):
                    for corners, value in zip(of_target, score.tolist(), strict=True):
                        if value >= self.least_score and (box := _whole_box(corners[None], image.size)):
                            yield Found(target, box=box, score=value)
                continue
            for target, logits in zip(names, output.masks[0], strict=True):
                probabilities = plan.restore(logits.float().sigmoid()).numpy()
                score = float(probabilities.max())
                patch = MaskPatch.from_mask(target, probabilities >= 0.5)
                if patch is not None and score >= self.least_score:
                    yield Found(target, patch=patch, score=round(score, 4))

    def _load(self) -> tuple[PromptTableSegmenter, VividMedImageProcessor]:
        if self._loaded is None:
            kind = "segmenter"
            try:
                state = load_file(self.checkpoint / _WEIGHTS)
                kind = "instance_segmenter" if any("score_head" in name for name in state) else "segmenter"
                model = PromptTableSegmenter(load_segmenter(kind, str(self.run)))
                model.load_state_dict(state)
                processor = VividMedImageProcessor.from_pretrained(self.run)
            except (OSError, ValueError, RuntimeError) as error:
                reason = " ".join(str(error).split())[:200]
                raise VividMedError(
                    f"{self.run}: cannot be loaded as a run of align-sam or align-isam ({reason}); give the folder of a "
                    "finished run with its checkpoints"
                ) from error
            self._loaded = model.eval(), processor
        return self._loaded


def _has_prompts(checkpoint: Path) -> bool:
    from safetensors import safe_open

    if not (checkpoint / _WEIGHTS).is_file():
        return False
    with safe_open(checkpoint / _WEIGHTS, framework="pt") as file:
        return "prompts.weight" in file.keys()  # noqa: SIM118 (not a dict)


def _whole_box(corners: torch.Tensor, size: tuple[int, int, int]) -> Box | None:
    """A box in whole voxels inside the image; None if nothing is left of it."""
    z0, y0, x0, z1, y1, x1 = round_boxes(clip_boxes(corners, size), size)[0].int().tolist()
    return (z0, y0, x0, z1, y1, x1) if z0 < z1 and y0 < y1 and x0 < x1 else None
