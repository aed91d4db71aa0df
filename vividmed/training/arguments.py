"""What a training run can be told, by YAML file and command line, on top of TRL's and the Trainer's own arguments."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from transformers import TrainingArguments
from transformers.trainer_utils import HubStrategy
from trl import ModelConfig

from vividmed.errors import VividMedError


@dataclass
class StageArguments:
    """Which stage to run.

    Args:
        stage: name of the stage.
    """

    stage: str = field(
        metadata={
            "help": "The stage to run: align-sam, align-isam (segmenters alone), vg (visual grounding), vlm (instruction "
            "tuning on images and text) or grg (grounded reports). --help with --stage shows the stage's arguments."
        }
    )


@dataclass
class DataArguments:
    """Rows and how batches are made of them.

    Args:
        dataset_name: Hub id or local folder of the stage's rows; the embedded sample when not given.
        mixture: file of a mixture of data sets to train on.
        mixture_root: folder or Hub organisation that holds the mixture's data sets.
        dataset_config: configuration (subset) of the data set.
        dataset_revision: branch, tag or commit of the data set.
        train_split: split to train on.
        eval_split: split to evaluate on.
        max_train_samples: train on the first so many rows.
        max_eval_samples: evaluate on the first so many rows.
        max_length: longest sequence in tokens, image tokens included.
        truncation: what to do with longer sequences.
        packing: put several samples in one row of a batch.
        on_bad_sample: what to do with rows that cannot be read or prepared.
        intensity_jitter: augmentation of contrast and brightness in training.
    """

    dataset_name: str | None = field(
        default=None,
        metadata={
            "help": "Hub id or local folder of the stage's rows (see docs/training.md). Default: the embedded sample."
        },
    )
    mixture: str | None = field(
        default=None,
        metadata={
            "help": "YAML file of a mixture of data sets to train on; dataset_name then gives the rows to evaluate on, "
            "which stage vlm needs."
        },
    )
    mixture_root: str | None = field(
        default=None,
        metadata={
            "help": "Folder or Hub organisation that holds the prepared data sets of the mixture. Default: as its file says."
        },
    )
    dataset_config: str | None = field(
        default=None, metadata={"help": "Configuration (subset) of the data set."}
    )
    dataset_revision: str | None = field(
        default=None, metadata={"help": "Branch, tag or commit of a data set on the Hub."}
    )
    train_split: str = field(default="train", metadata={"help": "Split to train on."})
    eval_split: str = field(default="test", metadata={"help": "Split to evaluate on."})
    max_train_samples: int | None = field(default=None, metadata={"help": "Train on the first so many rows."})
    max_eval_samples: int | None = field(
        default=None, metadata={"help": "Evaluate on the first so many rows."}
    )
    max_length: int = field(
        default=1024, metadata={"help": "Longest sequence in tokens, image tokens included. Published: 1024."}
    )
    truncation: Literal["error", "answer"] = field(
        default="error",
        metadata={
            "help": "Samples longer than max_length: 'error' stops with the row's id, 'answer' cuts the end of the answer."
        },
    )
    packing: bool = field(
        default=False,
        metadata={
            "help": "Put several samples in one row of a batch, each seeing only itself: less padding."
        },
    )
    on_bad_sample: Literal["error", "skip"] = field(
        default="error",
        metadata={
            "help": "Rows that cannot be read or prepared: 'error' stops with the row's id, 'skip' warns and goes on."
        },
    )
    intensity_jitter: float = field(
        default=0.0,
        metadata={
            "help": "Training rows: largest random change of contrast (a share) and brightness (in standard deviations). "
            "Not in the published training."
        },
    )


@dataclass
class ModelArguments(ModelConfig):
    """The model and its adapters.

    Args:
        freeze_vision: leave the vision tower untrained and without adapters.
        adapt_language: with ``use_peft``, adapters on the language experts.
        train_boundary_tokens: with ``use_peft``, also train the begin- and end-of-image tokens.
    """

    freeze_vision: bool = field(
        default=False, metadata={"help": "Leave the vision tower untrained and without adapters."}
    )
    adapt_language: bool | None = field(
        default=None,
        metadata={
            "help": "With use_peft: adapters on the language experts. Default: only when the vision tower is not "
            "frozen, as published."
        },
    )
    train_boundary_tokens: bool = field(
        default=False,
        metadata={
            "help": "With use_peft: also train the begin- and end-of-image tokens (frozen as published)."
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        quantized = self.load_in_4bit or self.load_in_8bit
        if quantized and not self.use_peft:
            raise VividMedError(
                "load_in_4bit and load_in_8bit need use_peft: quantised weights cannot be trained"
            )


@dataclass
class VividMedTrainingArguments(TrainingArguments):
    """The Trainer's arguments with our defaults, and a few of our own.

    Args:
        resume_from_checkpoint: go on from a checkpoint.
        overwrite_output_dir: remove the checkpoints and logs of an earlier run.
        generation_samples: evaluation rows to answer at each evaluation.
        generation_max_new_tokens: longest answer.
        closed_question_samples: evaluation rows with one right answer that are answered before and after training.
    """

    output_dir: str | None = field(
        default=None, metadata={"help": "Where everything is written. Default: outputs/STAGE."}
    )
    resume_from_checkpoint: str | None = field(
        default=None,
        metadata={
            "nargs": "?",
            "const": "latest",
            "help": "Go on from a checkpoint: a folder, 'latest' (also without a value) for the newest complete one in "
            "output_dir, 'auto' for the same or a fresh start when there is none.",
        },
    )
    overwrite_output_dir: bool = field(
        default=False,
        metadata={"help": "Remove the checkpoints and logs of an earlier run in output_dir before starting."},
    )
    generation_samples: int = field(
        default=3,
        metadata={"help": "Evaluation rows whose answers are written to samples.jsonl at each evaluation."},
    )
    generation_max_new_tokens: int = field(
        default=64, metadata={"help": "Longest generated answer in tokens."}
    )
    closed_question_samples: int = field(
        default=200,
        metadata={"help": "Evaluation rows with one right answer to answer before and after training."},
    )
    # Rows hold images and text, which are columns that the model's forward does not name.
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Always false: rows are turned into model inputs by the collator."}
    )
    # The default replaces NaN by an average in the log and reads the device at each step.
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "Hide non-finite losses in the log. Ours stops instead."}
    )
    hub_private_repo: bool | None = field(
        default=True, metadata={"help": "Whether push_to_hub makes the repository private."}
    )
    hub_strategy: str = field(
        default="end", metadata={"help": "When push_to_hub uploads: only 'end', when the model has its card."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hub_strategy != HubStrategy.END:
            raise VividMedError("hub_strategy must be 'end': the model is uploaded once, with its card")
        if self.remove_unused_columns:
            raise VividMedError(
                "remove_unused_columns must be false: the collator needs the rows' images and text"
            )

    @property
    def folder(self) -> Path:
        """The output folder."""
        return Path(str(self.output_dir))
