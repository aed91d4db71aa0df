"""One scan in, a grounded text out: the Python twin of ``vividmed predict``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from vividmed.errors import VividMedError
from vividmed.inference.grounding import REPORT_QUESTION, ground_report, redraw
from vividmed.inference.loading import identify, load_trained
from vividmed.inference.prompt_length import check_prompt_length
from vividmed.inference.target_forms import TargetForms, tagger
from vividmed.models.phrases.forms import default_form
from vividmed.processing.grounded_text import GroundedText, parse_grounded_text
from vividmed.processing.medical_image import MedicalImage
from vividmed.processing.reading import ImageSource, read_image

TARGETS_QUESTION = "Which of these are in this image?"
PredictTask = Literal["report", "vqa", "segment", "ground"]
# Arguments that each task uses, of those that only some tasks use.
_USED = {
    "report": ("prompt", "full_resolution"),
    "vqa": ("prompt",),
    "segment": ("targets", "full_resolution"),
    "ground": ("text", "full_resolution"),
}


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
        self._find_form = TargetForms(model.config.target_forms)

    @property
    def can_ground(self) -> bool:
        """Whether the model has a segmenter."""
        return self.model.segmenter is not None or self.model.instance_segmenter is not None

    @cached_property
    def identity(self) -> str:
        """Digest of the weights and of what the configuration says about grounding, wherever they were loaded from."""
        return identify(self.model)

    def __call__(self, scan: ImageSource, **options: Any) -> Result:
        """Look at one scan; options as in :meth:`predict_batch`.

        Raises:
            VividMedError: the scan cannot be read, an argument that the task needs is missing, or the model cannot
                ground.
        """
        (result,) = self.predict_batch([scan], **options)
        if isinstance(result, VividMedError):
            raise result
        return result

    @torch.no_grad()
    def predict_batch(
        self,
        scans: Sequence[ImageSource],
        *,
        task: PredictTask = "report",
        prompt: str | None = None,
        targets: Sequence[str] = (),
        text: str | None = None,
        full_resolution: bool = False,
        max_new_tokens: int = 512,
    ) -> list[Result | VividMedError]:
        """Look at several scans; texts are written together.

        Args:
            scans: each as in :func:`vividmed.processing.reading.read_image`.
            task: ``report`` writes a report, with places where the model can ground; ``vqa`` answers ``prompt``;
                ``segment`` finds ``targets``; ``ground`` finds the phrases of the report ``text``.
            prompt: question of ``vqa``; replaces the question of ``report``.
            targets: what to segment: names of the taxonomy or phrases that contain one, or targets of the training.
            text: report to ground. Its phrases are marked ``<p>phrase</p>``; without a mark, the rule tagger marks what
                the text says is there.
            full_resolution: draw masks again on the image's own voxels.
            max_new_tokens: longest text.

        Returns:
            For each scan its result, or the error for which it has none; other scans are not affected.

        Raises:
            VividMedError: an argument that the task needs is missing, one that it does not use is given, or the model
                cannot ground.
        """
        request = self._request(task, prompt, targets, text, full_resolution, max_new_tokens)
        results: list[Result | VividMedError | None] = [None] * len(scans)
        images: dict[int, MedicalImage] = {}
        for number, scan in enumerate(scans):
            try:
                images[number] = read_image(scan)
            except VividMedError as error:
                results[number] = error
        looked = self._look_together(list(images.values()), request)
        for number, result in zip(images, looked, strict=True):
            results[number] = result
        return results  # type: ignore[return-value]

    def chat(
        self, image: ImageSource, messages: Sequence[Mapping[str, str]], *, max_new_tokens: int = 512
    ) -> str:
        """Answer the last question of a conversation about one image.

        Args:
            image: as in :func:`vividmed.processing.reading.read_image`.
            messages: ``{"role": "user" | "assistant", "content": text}``, the last one of the user.
            max_new_tokens: longest answer.

        Raises:
            VividMedError: the image cannot be read, or the conversation is longer than the model reads.
        """
        batch = self.processor(images=read_image(image), conversations=list(messages)).to(self.model.device)
        check_prompt_length(self.model.config, batch)
        with torch.no_grad():
            output = self.model.generate(**batch, max_new_tokens=max_new_tokens, do_sample=False)
        (answer,) = self.processor.post_process_text(output, prompt_length=batch["input_ids"].shape[1])
        return answer.text

    def _request(
        self,
        task: PredictTask,
        prompt: str | None,
        targets: Sequence[str],
        text: str | None,
        full_resolution: bool,
        max_new_tokens: int,
    ) -> "_Request":
        """Check a request before any scan is read."""
        if task not in _USED:
            raise VividMedError(f"task {task!r} is unknown; use {', '.join(_USED)}")
        named = [target for target in targets if target.strip()]
        given_arguments = {
            "prompt": prompt,
            "targets": named,
            "text": text,
            "full_resolution": full_resolution,
        }
        for name, value in given_arguments.items():
            if value and name not in _USED[task]:
                users = " or ".join(other for other, used in _USED.items() if name in used)
                raise VividMedError(f"task {task} does not use {name}; leave it out, or use task {users}")
        if task in ("segment", "ground") and not self.can_ground:
            raise VividMedError(f"task {task} needs a model with segmenters; this one has none")
        question, given = prompt or REPORT_QUESTION, ""
        spans: list[tuple[int, int]] = []
        if task == "segment":
            question, (given, spans) = TARGETS_QUESTION, list_targets(targets)
            self._find_form.check([given[start:end] for start, end in spans])
        elif task == "ground":
            question, (given, spans) = REPORT_QUESTION, mark_phrases(text)
        elif task == "vqa" and not (prompt or "").strip():
            raise VividMedError("task vqa needs a prompt: the question")
        return _Request(task, question, given, spans, full_resolution, max_new_tokens)

    def _look_together(
        self, images: Sequence[MedicalImage], request: "_Request"
    ) -> list[Result | VividMedError]:
        """Look at images together, or one by one where together they fail."""
        if request.task in ("segment", "ground") and len(images) > 1:
            return [result for image in images for result in self._look_together([image], request)]
        try:
            texts = self._look(images, request) if images else []
        except (VividMedError, torch.OutOfMemoryError) as error:
            if len(images) > 1:
                return [result for image in images for result in self._look_together([image], request)]
            if isinstance(error, torch.OutOfMemoryError):
                error = VividMedError(
                    f"{images[0].source}: the accelerator has too little memory for this scan; use --dtype bfloat16, "
                    "--load-in-4bit or another device"
                )
            return [error]
        return [
            Result(image, request.task, request.question, text)
            for image, text in zip(images, texts, strict=True)
        ]

    def _look(self, images: Sequence[MedicalImage], request: "_Request") -> list[GroundedText]:
        if request.task in ("segment", "ground"):
            segments = request.task == "segment" and self.model.segmenter is not None
            return [
                ground_report(
                    self.model,
                    self.processor,
                    image,
                    request.text,
                    request.spans,
                    question=request.question,
                    full_resolution=request.full_resolution,
                    default="mask" if segments else default_form(image.size[0] > 1),
                )
                for image in images
            ]
        grounding = request.task == "report" and self.can_ground
        batch = self.processor(
            images=[[image] for image in images], text=[request.question] * len(images), grounding=grounding
        ).to(self.model.device)
        check_prompt_length(self.model.config, batch)
        options = {"max_new_tokens": request.max_new_tokens, "do_sample": False}
        if grounding:
            return self._write_grounded(images, batch, request, options)
        output = self.model.generate(**batch, **options)
        texts = self.processor.post_process_text(output, prompt_length=batch["input_ids"].shape[1])
        return [GroundedText(text.text) for text in texts]

    def _write_grounded(
        self, images: Sequence[MedicalImage], batch: Any, request: "_Request", options: dict[str, Any]
    ) -> list[GroundedText]:
        geometry = batch["geometry"]
        written = self.model.write_grounded(
            **batch, processor=self.processor, find_form=self._find_form, **options
        )
        texts = []
        for number, image in enumerate(images):
            output = written.output and written.output.of_sample(number)
            redrawn = None
            if request.full_resolution and output is not None:
                redrawn = redraw(self.model, self.processor, image, output, plan=geometry[number])
            texts += self.processor.post_process_grounding(
                [written.ids[number]],
                output=output,
                first_prompts=[0],
                geometry=[geometry[number]],
                redrawn=[redrawn],
                forms=[written.forms[number]],
                presence_thresholds=self.model.config.presence_thresholds,
            )
        return texts


@dataclass(frozen=True)
class _Request:
    """What is asked about every scan: ``text`` and ``spans`` are those of an answer that is given."""

    task: PredictTask
    question: str
    text: str
    spans: list[tuple[int, int]]
    full_resolution: bool
    max_new_tokens: int


def list_targets(targets: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """Write an answer that names targets, as in training; returns it with the span of each.

    Raises:
        VividMedError: there is no target.
    """
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


def mark_phrases(text: str | None) -> tuple[str, list[tuple[int, int]]]:
    """Find the phrases of a report that are to be grounded; returns it without markers, and their spans.

    Raises:
        VividMedError: the text is empty, or names nothing that could be shown.
    """
    if not (text or "").strip():
        raise VividMedError("task ground needs the text of a report")
    parsed = parse_grounded_text(text or "")
    spans = [(phrase.start, phrase.end) for phrase in parsed.phrases]
    if not spans:
        spans = [
            (mention.start, mention.end)
            for mention in tagger()(parsed.text)
            if mention.status == "present" and tagger().taxonomy[mention.target].groundable
        ]
    if not spans:
        raise VividMedError("the report names nothing that could be shown; mark phrases with <p> and </p>")
    return parsed.text, spans
