"""The model's thread: takes jobs from a queue and answers questions in batches."""

import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from vividmed.inference.predictor import Predictor
from vividmed.inference.prompt_length import check_prompt_length
from vividmed.inference.target_forms import TargetForms
from vividmed.processing.grounded_text import GroundedText
from vividmed.serving.errors import ApiError
from vividmed.serving.jobs import CallJob, Failed, Finished, Job, QuestionJob
from vividmed.serving.metrics import ServerMetrics


class Engine:
    """One model with a queue.

    Questions with equal settings that arrive together, or while the model is busy, are answered in one batch. Within a
    batch, every answer ends at its own length, deadline or cancellation.

    Args:
        predictor: the model.
        metrics: figures to keep.
        batch_size: most questions per batch.
        batch_wait: seconds that the first question of a batch waits for others.
    """

    def __init__(
        self, predictor: Predictor, metrics: ServerMetrics, *, batch_size: int = 8, batch_wait: float = 0.01
    ):
        self.predictor = predictor
        self._find_form = TargetForms(predictor.model.config.target_forms)
        self._metrics = metrics
        self._batch_size = batch_size
        self._batch_wait = batch_wait
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="vividmed-model", daemon=True)
        self._thread.start()
        metrics.waiting.set_function(lambda: len(self._waiting))

    @property
    def is_working(self) -> bool:
        """Whether jobs are accepted and answered."""
        return self._thread.is_alive() and not self._closing

    @property
    def number_waiting(self) -> int:
        """Jobs that wait for the model."""
        return len(self._waiting)

    def submit(self, job: Job) -> None:
        """Put a job into the queue.

        Raises:
            ApiError: the server is shutting down.
        """
        with self._changed:
            if not self.is_working:
                raise ApiError(503, "the server is shutting down", code="shutting_down", retry_after=5)
            self._waiting.append(job)
            self._changed.notify()

    def close(self) -> None:
        """Answer what is in the queue, then end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while jobs := self._next_jobs():
            current = [job for job in jobs if not job.cancelled]
            for job in current:
                if job.is_late:
                    job.emit(Failed(_too_late()))
            self._run([job for job in current if not job.is_late])
            # Images of answered jobs must not live until the next job arrives.
            del jobs, current

    def _next_jobs(self) -> list[Job]:
        """Wait for a job; of a question, also for others that can be answered with it. Empty at the end."""
        with self._changed:
            while not self._waiting:
                if self._closing:
                    return []
                self._changed.wait()
            first = self._waiting.popleft()
            if not isinstance(first, QuestionJob) or first.sampling.seed is not None:
                return [first]
            batch: list[Job] = [first]
            end = time.monotonic() + self._batch_wait
            while True:
                for job in list(self._waiting):
                    if len(batch) >= self._batch_size:
                        break
                    if isinstance(job, QuestionJob) and job.sampling == first.sampling:
                        self._waiting.remove(job)
                        batch.append(job)
                remaining = end - time.monotonic()
                if len(batch) >= self._batch_size or remaining <= 0 or self._closing:
                    return batch
                self._changed.wait(remaining)

    def _run(self, jobs: Sequence[Job]) -> None:
        if not jobs:
            return
        try:
            if isinstance(jobs[0], CallJob):
                jobs[0].emit(Finished(jobs[0].call()))
            else:
                self._answer([job for job in jobs if isinstance(job, QuestionJob)])
        except Exception as error:
            if len(jobs) > 1 and not any(job.ids for job in jobs if isinstance(job, QuestionJob)):
                # One question must not fail the others, and what is too large together may fit one by one.
                for job in jobs:
                    self._run([job])
                return
            for job in jobs:
                job.emit(Failed(_failure(error)))

    def _answer(self, jobs: list[QuestionJob]) -> None:
        predictor, sampling = self.predictor, jobs[0].sampling
        batch = predictor.processor(
            images=[job.images or None for job in jobs] if any(job.images for job in jobs) else None,
            conversations=[job.messages for job in jobs],
            grounding=sampling.grounding,
        ).to(predictor.model.device)
        check_prompt_length(predictor.model.config, batch)
        prompt_tokens = batch["attention_mask"].ne(0).sum(1).tolist()
        self._metrics.batch_size.observe(len(jobs))
        self._metrics.prompt_tokens.inc(sum(prompt_tokens))
        watch = _Watch(jobs, predictor.model.generation_config.eos_token_id)
        options: dict[str, Any] = {
            "max_new_tokens": max(job.max_new_tokens for job in jobs),
            "do_sample": sampling.temperature > 0,
            "stopping_criteria": StoppingCriteriaList([watch]),
        }
        if sampling.temperature > 0:
            options |= {"temperature": sampling.temperature, "top_p": sampling.top_p}
        if sampling.seed is not None:
            torch.manual_seed(sampling.seed)
        for job, grounded, tokens in zip(
            jobs, self._generate(batch, options, sampling), prompt_tokens, strict=True
        ):
            self._metrics.written_tokens.inc(len(job.ids))
            if job.first_token_at is not None:
                self._metrics.first_token_seconds.observe(job.first_token_at - job.started_at)
            if job.finish_reason is None and job.is_late:
                job.emit(Failed(_too_late()))
            else:
                job.finish(grounded, tokens)

    def _generate(self, batch: Any, options: dict[str, Any], sampling: Any) -> list[GroundedText]:
        model, processor = self.predictor.model, self.predictor.processor
        if sampling.grounding:
            return model.generate_grounded(**batch, processor=processor, find_form=self._find_form, **options)
        sequences = model.generate(**batch, **options)
        parsed = processor.post_process_text(sequences, prompt_length=batch["input_ids"].shape[1])
        return [GroundedText(text.text) for text in parsed]


class _Watch(StoppingCriteria):
    """Hands every new token to its job, and ends the rows whose jobs are finished."""

    def __init__(self, jobs: list[QuestionJob], end_ids: int | list[int] | None):
        self.jobs = jobs
        self.end_ids = set(end_ids if isinstance(end_ids, list) else [] if end_ids is None else [end_ids])

    def __deepcopy__(self, _memory: Any) -> "_Watch":
        return self  # generate copies its criteria, and jobs have one reader

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        tokens = input_ids[:, -1].tolist()
        done = [job.receive(token, self.end_ids) for job, token in zip(self.jobs, tokens, strict=True)]
        return torch.tensor(done, device=input_ids.device)


def _too_late() -> ApiError:
    return ApiError(503, "the answer took longer than the server allows", code="timeout", retry_after=10)


def _failure(error: Exception) -> Exception:
    if isinstance(error, torch.OutOfMemoryError):
        return ApiError(
            503, "the model ran out of memory; send a smaller image", code="out_of_memory", retry_after=10
        )
    return error
