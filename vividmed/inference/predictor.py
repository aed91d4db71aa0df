"""One scan in, a grounded text out: the Python twin of ``vividmed predict``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from vividmed.data.pseudo_labels.tagging import Tagger
from vividmed.errors import VividMedError
from vividmed.inference.grounding import REPORT_QUESTION, ground_report
from vividmed.inference.loading import load_trained
from vividmed.processing.grounded_text import GroundedText, parse_grounded_text
from vividmed.processing.medical_image import MedicalImage
from vividmed.processing.reading import ImageSource, read_image

TARGETS_QUESTION = "Which of these are in this image?"
PredictTask = Literal["report", "vqa", "segment", "ground"]


@dataclass(frozen=True, eq=False)
class Result:
    """Findings in one scan.

    Attributes:
        image: as read.
        task: what was asked for.
        question: the prompt.
        grounded: the text with its phrases; masks and boxes lie on the image's grid.
    """

    image: MedicalImage
    task: PredictTask
    question: str
    grounded: GroundedText


class Predictor:
    """A trained model, ready to look at scans.

    Args:
        model: folder or Hub repository of a model or an adapter, or a loaded model with ``processor``.
        processor: of a loaded model.
        device: of the model; the accelerator by default, if there is one.
        dtype: of the weights.
        load_in_4bit: quantise the model.

    Example:
        >>> predictor = Predictor("outputs/grg")
        >>> result = predictor("ct.nii.gz")
        >>> print(result.grounded.text)
    """

    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        load_in_4bit: bool = False,
    ):
        if isinstance(model, str | Path):
            model, processor = load_trained(model, device=device, dtype=dtype, load_in_4bit=load_in_4bit)
        self.model = model
        self.processor = processor

    @property
    def can_ground(self) -> bool:
        """Whether the model has a segmenter."""
        return self.model.segmenter is not None or self.model.instance_segmenter is not None

    def __call__(
        self,
        scan: ImageSource,
        *,
        task: PredictTask = "report",
        prompt: str | None = None,
        targets: Sequence[str] = (),
        text: str | None = None,
        full_resolution: bool = False,
        max_new_tokens: int = 512,
    ) -> Result:
        """Look at one scan.

        Args:
            scan: as in :func:`vividmed.processing.reading.read_image`.
            task: ``report`` writes a report, with places where the model can ground; ``vqa`` answers ``prompt``;
                ``segment`` draws masks of ``targets``; ``ground`` finds the phrases of the report ``text``.
            prompt: question of ``vqa``; replaces the question of ``report``.
            targets: what to segment, best by names of the taxonomy.
            text: report to ground. Its phrases are marked ``<p>phrase</p>``; without a mark, the rule tagger marks what
                the text says is there.
            full_resolution: draw masks again on the image's own voxels.
            max_new_tokens: longest text.

        Raises:
            VividMedError: the scan cannot be read, an argument that the task needs is missing, or the model cannot
                ground.
        """
        if task not in ("report", "vqa", "segment", "ground"):
            raise VividMedError(f"task {task!r} is unknown; use report, vqa, segment or ground")
        if task in ("segment", "ground") and not self.can_ground:
            raise VividMedError(f"task {task} needs a model with segmenters; this one has none")
        if task == "segment":
            question, given = TARGETS_QUESTION, self._list_targets(targets)
        elif task == "ground":
            question, given = REPORT_QUESTION, self._mark_phrases(text)
        elif task == "vqa" and not (prompt or "").strip():
            raise VividMedError("task vqa needs a prompt: the question")
        image = read_image(scan)
        if task in ("segment", "ground"):
            grounded = ground_report(
                self.model,
                self.processor,
                image,
                *given,
                question=question,
                masks=self.model.segmenter is not None,
                boxes=task == "ground" or self.model.segmenter is None,
                full_resolution=full_resolution,
            )
            return Result(image, task, question, grounded)
        question = prompt or REPORT_QUESTION
        grounded = self._write(image, question, grounding=task == "report", max_new_tokens=max_new_tokens)
        if task == "report" and full_resolution and grounded.phrases and self.model.segmenter is not None:
            spans = [(phrase.start, phrase.end) for phrase in grounded.phrases]
            grounded = ground_report(
                self.model,
                self.processor,
                image,
                grounded.text,
                spans,
                question=question,
                full_resolution=True,
            )
        return Result(image, task, question, grounded)

    def _write(
        self, image: MedicalImage, question: str, *, grounding: bool, max_new_tokens: int
    ) -> GroundedText:
        grounding = grounding and self.can_ground
        batch = self.processor(images=image, text=question, grounding=grounding).to(self.model.device)
        options = {"max_new_tokens": max_new_tokens, "do_sample": False}
        if grounding:
            (grounded,) = self.model.generate_grounded(**batch, processor=self.processor, **options)
            return grounded
        with torch.no_grad():
            output = self.model.generate(**batch, **options)
        (parsed,) = self.processor.post_process_text(output, prompt_length=batch["input_ids"].shape[1])
        return GroundedText(parsed.text)

    @staticmethod
    def _list_targets(targets: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
        names = [target.strip() for target in targets if target.strip()]
        if not names:
            raise VividMedError(
                "task segment needs targets: names of structures or findings, such as 'left kidney'"
            )
        text, spans = "Results:", []
        for name in names:
            start = len(text) + 1
            spans.append((start, start + len(name)))
            text += f" {name}: yes,"
        return text.removesuffix(",") + ".", spans

    @staticmethod
    def _mark_phrases(text: str | None) -> tuple[str, list[tuple[int, int]]]:
        if not (text or "").strip():
            raise VividMedError("task ground needs the text of a report")
        parsed = parse_grounded_text(text or "")
        spans = [(phrase.start, phrase.end) for phrase in parsed.phrases]
        if not spans:
            tagger = Tagger()
            spans = [
                (mention.start, mention.end)
                for mention in tagger(parsed.text)
                if mention.status == "present" and tagger.taxonomy[mention.target].groundable
            ]
        if not spans:
            raise VividMedError(
                "the report names nothing that could be shown; mark phrases with <p> and </p>"
            )
        return parsed.text, spans
