"""Stage ``vlm``: instruction tuning on images and text (published stage 2)."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from vividmed.data.bad_rows import OnBadSample, usable_rows
from vividmed.data.batches.collator import VividMedCollator
from vividmed.data.batches.examples import shuffled_turns, to_example
from vividmed.data.sampling.keyed_rows import KeyedRows
from vividmed.data.sampling.mixture_conversations import mixture_conversation
from vividmed.training.adapters.groups import GROUNDING_MODULES
from vividmed.training.answers import CLOSED_KINDS, generate_answers, score_closed
from vividmed.training.callbacks import SampleAnswers
from vividmed.training.loading import load_processor
from vividmed.training.settings.arguments import VlmDataArguments, VlmTrainingArguments
from vividmed.training.settings.model_arguments import ModelArguments
from vividmed.training.stages.language import LanguageStage
from vividmed.training.stages.measurement import Measurement
from vividmed.training.stages.stage import StageRows
from vividmed.training.trainer import VividMedTrainer


@dataclass
class VlmStage(LanguageStage):
    """Train on images and conversations; held-out questions are answered before and after training."""

    name = "vlm"
    row_kind = "vision_language"
    card = "vlm.md.jinja"
    always_measures_start = True

    data_args: VlmDataArguments
    model_args: ModelArguments
    args: VlmTrainingArguments

    def build(self, rows: StageRows) -> VividMedTrainer:
        processor = load_processor(self.model_args)

        return VividMedTrainer(
            model=self.load_model(processor, frozen=GROUNDING_MODULES),
            args=self.args,
            processing_class=processor,
            data_collator=self.collator(
                VividMedCollator,
                processor,
                rows,
                independent_turns=self.data_args.independent_turns,
                intensity_jitter=self.data_args.intensity_jitter,
                transform=partial(
                    _example_of,
                    rows.train,
                    first_image=self.data_args.first_image,
                    shuffle_seed=self.args.seed if self.data_args.shuffle_turns else None,
                ),
            ),
            train_dataset=rows.train,
            eval_dataset=rows.evaluation,
        )

    def sample_answers(self, trainer: VividMedTrainer, rows: StageRows) -> SampleAnswers:
        return SampleAnswers(
            trainer.processing_class,
            varied_rows(rows.evaluation, self.args.generation_samples, self.data_args.on_bad_sample),
            max_new_tokens=self.args.generation_max_new_tokens,
            context=trainer.accelerator.autocast,
        )

    def measure(
        self, trainer: VividMedTrainer, rows: StageRows, evaluation: Mapping[str, float]
    ) -> Measurement:
        closed = closed_rows(rows.evaluation, self.args.closed_question_samples, self.data_args.on_bad_sample)
        with trainer.accelerator.autocast():
            answers = generate_answers(
                trainer.model,
                trainer.processing_class,
                closed,
                max_new_tokens=self.args.generation_max_new_tokens,
                batch_size=self.args.per_device_eval_batch_size,
            )
        return Measurement.of_evaluation(
            evaluation, accuracy=score_closed(closed, answers), loss="loss per token"
        )


def _example_of(
    rows: Any,
    row: Mapping[str, Any],
    *,
    first_image: bool,
    shuffle_seed: int | None,
) -> dict[str, Any]:
    """A row of ``rows`` as an example; a function of the module, since workers of a data loader may be spawned."""
    example = to_example(row, mixture_conversation(rows, row))
    if first_image:
        example["images"] = example["images"][:1]
    if shuffle_seed is not None:
        example["messages"] = shuffled_turns(example["messages"], row, seed=shuffle_seed)
    return example


def varied_rows(rows: Any, number: int, on_bad_sample: OnBadSample = "error") -> list[Mapping[str, Any]]:
    """Rows whose patients, modalities and kinds differ as much as possible, in the data set's order."""
    keys = rows.select_columns(["patient", "modality", "kind"])
    chosen: list[int] = []
    seen: set[Any] = set()
    for columns in (("patient", "modality", "kind"), ("patient", "kind"), ("kind",), ()):
        for index, key in enumerate(keys):
            values = {(column, key[column]) for column in columns}
            if len(chosen) < number and index not in chosen and not values & seen:
                chosen.append(index)
                seen |= {(column, key[column]) for column in ("patient", "modality", "kind")}
    return usable_rows(KeyedRows(rows), sorted(chosen), to_example, on_bad_sample=on_bad_sample)


def closed_rows(rows: Any, number: int, on_bad_sample: OnBadSample = "error") -> list[Mapping[str, Any]]:
    """The first rows whose question has one right answer."""
    indices = [
        index for index, row in enumerate(rows.select_columns(["kind"])) if row["kind"] in CLOSED_KINDS
    ]
    return usable_rows(KeyedRows(rows), indices[:number], to_example, on_bad_sample=on_bad_sample)
