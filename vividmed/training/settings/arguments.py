"""Arguments of the stages, from YAML file and command line, on top of TRL's and the Trainer's own."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from transformers import TrainingArguments
from transformers.utils import is_torch_bf16_gpu_available

from vividmed.errors import VividMedError
from vividmed.metrics.names import is_greater_better
from vividmed.training.settings.deformation_arguments import DeformationArguments
from vividmed.training.settings.refused_arguments import refuse_unused, refuse_without


@dataclass
class StageArguments:
    """Which stage to run.

    Args:
        stage: name of the stage.
    """

    stage: str = field(
        metadata={
            "help": "The stage to run: align-sam or align-isam (a segmenter without a language model), vg (visual "
            "grounding), vlm (instruction tuning on images and text) or grg (grounded reports). --help together with "
            "--stage lists the arguments of that stage."
        }
    )


@dataclass
class DataArguments(DeformationArguments):
    """Arguments that choose the rows.

    Args:
        > Parameters that choose data sets

        dataset_name: Hub id or local folder of the stage's rows, or a small table; None takes the embedded sample.
        dataset_config: configuration (subset) of the data set.
        dataset_revision: branch, tag or commit of the data set.
        mixture: file of a mixture of data sets to train on.
        mixture_root: folder or Hub organisation that contains the mixture's data sets.
        streaming: whether the mixture is read as a stream.

        > Parameters that choose rows

        train_split: split to train on.
        eval_split: split to evaluate on.
        max_train_samples: number of rows to train on, taken from the start of the split; None takes all.
        max_eval_samples: number of rows to evaluate on, taken from the start of the split; None takes all.
        allow_outside_images: whether rows may name image files outside the data set's folder.
        with_noncommercial: whether the embedded sample contains the patients whose images are for non-commercial use.
        on_bad_sample: what happens to rows that cannot be read or prepared.
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
            "help": "YAML file of a mixture of data sets to train on; --dataset_name then gives the rows to evaluate on."
        },
    )
    mixture_root: str | None = field(
        default=None,
        metadata={
            "help": "Folder or Hub organisation that contains the prepared data sets of the mixture. Default: the one "
            "that the mixture's file names."
        },
    )
    streaming: bool = field(
        default=False,
        metadata={
            "help": "Read the mixture's data sets as a stream instead of downloading them first; needs --max_steps."
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
    max_train_samples: int | None = field(
        default=None, metadata={"help": "Use only the first N training rows."}
    )
    max_eval_samples: int | None = field(
        default=None, metadata={"help": "Use only the first N evaluation rows."}
    )
    allow_outside_images: bool = field(
        default=False,
        metadata={
            "help": "Read image files that rows name outside the data set's folder; only for data sets of your own."
        },
    )
    with_noncommercial: bool = field(
        default=False,
        metadata={
            "help": "Add to the embedded sample four patients whose images must not be used commercially (CC BY-NC 3.0)."
        },
    )
    on_bad_sample: Literal["error", "skip"] = field(
        default="error",
        metadata={
            "help": "Rows that cannot be read or prepared: 'error' stops and names the row, 'skip' warns and leaves it out."
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dataset_name is None:
            refuse_without(self, "dataset_name", ("dataset_config", "dataset_revision"))
        elif self.with_noncommercial:
            raise VividMedError(
                "--with_noncommercial has no effect with --dataset_name: it adds patients to the embedded sample"
            )
        if self.mixture is None:
            refuse_without(self, "mixture", ("mixture_root", "streaming"))
            return
        for name, default in (("max_train_samples", None), ("train_split", "train")):
            if getattr(self, name) != default:
                raise VividMedError(
                    f"--{name} has no effect with --mixture: the mixture's file names splits and weights; set them there"
                )


@dataclass
class TextDataArguments(DataArguments):
    """Arguments that choose the rows of a stage whose model writes text, and how they become batches.

    Args:
        > Parameters that control batches

        max_length: longest sequence in tokens, image tokens included.
        truncation: what happens to longer sequences.
        packing: whether several samples share a row of a batch.
    """

    max_length: int = field(
        default=1024, metadata={"help": "Longest sequence in tokens, image tokens included. Published: 1024."}
    )
    truncation: Literal["error", "answer"] = field(
        default="error",
        metadata={
            "help": "Samples longer than max_length: 'error' stops and names the row, 'answer' cuts the end of the answer."
        },
    )
    packing: bool = field(
        default=False,
        metadata={
            "help": "Put several samples in one row of a batch, each seeing only itself: less padding."
        },
    )


@dataclass
class VlmDataArguments(TextDataArguments):
    """Arguments that choose the rows of stage ``vlm``.

    Args:
        > Parameters that control augmentation

        intensity_jitter: largest change of contrast and brightness in training.
        shuffle_turns: whether the questions of a row are asked in another order in each epoch.
        independent_turns: whether each question of a row is answered from the images alone, without the other turns.
        first_image: whether only the first image of a row is shown.
    """

    intensity_jitter: float = field(
        default=0.0,
        metadata={
            "help": "Largest random change of contrast (a share) and brightness (in standard deviations) of training "
            "images. Not part of the published training."
        },
    )
    shuffle_turns: bool = field(
        default=False,
        metadata={
            "help": "Ask the questions of a row in another order in each epoch, as published for questions about an image."
        },
    )
    independent_turns: bool = field(
        default=False,
        metadata={
            "help": "Let each question of a row see the images and itself only, so that no answer follows from an earlier "
            "one; images are still encoded once for all. Not part of the published training."
        },
    )
    first_image: bool = field(
        default=False,
        metadata={"help": "Show only the first image of a row, as published for reports of studies."},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.independent_turns and self.shuffle_turns:
            raise VividMedError(
                "--shuffle_turns has no effect with --independent_turns: no turn sees another one; leave it out"
            )


@dataclass
class VividMedTrainingArguments(TrainingArguments):
    """The Trainer's arguments with our defaults, and a few of our own.

    An argument of the Trainer that our stages would not obey is refused; :mod:`vividmed.training.settings.refused_arguments`
    lists them with the reasons.

    Args:
        > Parameters that control the output folder

        resume_from_checkpoint: checkpoint to continue from.
        allow_inexact_resume: whether a run may be resumed that cannot continue exactly.
        overwrite_output_dir: whether checkpoints and logs of an earlier run are removed.

        > Parameters that control precision

        bf16: whether matrix products are computed in bfloat16; None where the accelerator supports it.

        > Parameters that end training early

        early_stopping_patience: number of evaluations without improvement after which training ends; None never does.
        early_stopping_threshold: smallest improvement that counts.

        > Parameters of the optimizer and its schedule

        muon: whether Muon updates the matrices of hidden layers.
        lr_update_steps: number of steps for which the learning rate of the schedule is kept.
    """

    output_dir: str | None = field(
        default=None, metadata={"help": "Folder of everything that is written. Default: outputs/STAGE."}
    )
    resume_from_checkpoint: str | None = field(
        default=None,
        metadata={
            "nargs": "?",
            "const": "latest",
            "help": "Continue from a checkpoint: a folder; 'latest' (also without a value) for the newest complete one in "
            "output_dir; 'auto' for the same, or a fresh start if there is none.",
        },
    )
    allow_inexact_resume: bool = field(
        default=False,
        metadata={
            "help": "Resume even though the data, seed, batch size, number of processes or optimizer state differ from "
            "those of the checkpoint, so that the result differs from an unbroken run."
        },
    )
    overwrite_output_dir: bool = field(
        default=False,
        metadata={"help": "Remove the checkpoints and logs of an earlier run in output_dir before starting."},
    )
    bf16: bool | None = field(
        default=None,
        metadata={
            "nargs": "?",
            "const": True,
            "help": "Compute in bfloat16 (autocast, or mixed precision of FSDP2); the weights that are trained stay in "
            "float32. Default: only on GPUs that support it.",
        },
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={
            "help": "End training after this many evaluations without an improvement of --metric_for_best_model. Default: "
            "train to the end."
        },
    )
    early_stopping_threshold: float = field(
        default=0.0,
        metadata={"help": "With --early_stopping_patience: smallest improvement that counts."},
    )
    muon: bool = field(
        default=False,
        metadata={
            "help": "Update the matrices of hidden layers with Muon, and everything else with AdamW. Far fewer steps for "
            "weights that start at random; not for FSDP and DeepSpeed. Not part of the published training."
        },
    )
    lr_update_steps: int = field(
        default=1,
        metadata={
            "help": "Steps between two updates of the learning rate, which is that of the schedule at the last update. "
            "Published as 250 for fine-tuning."
        },
    )
    # Rows of similar length share a batch, so that little is padded; a mixture draws its own order.
    train_sampling_strategy: str = field(
        default="group_by_length",
        metadata={
            "help": "Order of training rows: 'group_by_length' or 'random', both shuffled by seed and epoch; only for "
            "rows of one data set, as a mixture draws its own order."
        },
    )
    # Rows have images and text, which are columns that the model's forward does not name.
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Always false: rows are turned into model inputs by the collator."}
    )
    # The Trainer's default replaces NaN by an average in the log and reads the device at each step.
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "Always false: a non-finite loss stops the run."}
    )
    hub_private_repo: bool | None = field(
        default=True, metadata={"help": "Whether push_to_hub makes the repository private."}
    )
    hub_strategy: str = field(
        default="end", metadata={"help": "Always 'end': the model is uploaded once, with its card."}
    )

    def __post_init__(self) -> None:
        self._bf16_asked = self.bf16
        if self.bf16 is None:
            self.bf16 = not self.fp16 and not self.use_cpu and is_torch_bf16_gpu_available()
        if self.metric_for_best_model is not None and self.greater_is_better is None:  # type: ignore[has-type]
            # Dice coefficients are named by their target; what no metric gives is a loss, whatever its name ends with.
            name = self.metric_for_best_model.removeprefix("eval_")
            self.greater_is_better = name.startswith("dice/") or bool(is_greater_better(name))
        super().__post_init__()
        # Without an accelerator there is nothing to pin memory for, and PyTorch warns at every epoch.
        if not torch.accelerator.is_available():
            self.dataloader_pin_memory = False
        refuse_unused(self)
        self._check_early_stopping()

    @property
    def optimizer_name(self) -> str:
        """Name of the optimizer: ``muon``, or as ``--optim`` takes it."""
        return "muon" if self.muon else str(getattr(self.optim, "value", self.optim))

    def _check_early_stopping(self) -> None:
        if self.early_stopping_patience is None:
            refuse_without(self, "early_stopping_patience", ("early_stopping_threshold",))
            return
        if self.early_stopping_patience < 1 or self.early_stopping_threshold < 0:
            raise VividMedError(
                "--early_stopping_patience must be at least 1 and --early_stopping_threshold at least 0; found "
                f"{self.early_stopping_patience} and {self.early_stopping_threshold:g}"
            )
        if self.eval_strategy == "no":
            raise VividMedError(
                "--early_stopping_patience: nothing is evaluated; add --eval_strategy epoch or steps, or leave it out"
            )

    def compute_in_bfloat16(self) -> None:
        """Turn bfloat16 on for a model whose frozen weights are stored in it, unless that was ruled out.

        Raises:
            VividMedError: ``--bf16 false`` was given.
        """
        if self.mixed_precision != "no":  # type: ignore[has-type]
            return
        if self._bf16_asked is False:
            raise VividMedError(
                "--bf16 false: frozen weights in bfloat16 and trained ones in float32 meet only in mixed precision; "
                "leave --bf16 out, or give --dtype float32 or --trainable_dtype as_loaded"
            )
        self.bf16, self.mixed_precision = True, "bf16"

    @property
    def folder(self) -> Path:
        """The output folder."""
        return Path(str(self.output_dir))


@dataclass
class AnsweringTrainingArguments(VividMedTrainingArguments):
    """Training arguments of the stages whose model writes text.

    Args:
        > Parameters that control answers during training

        generation_samples: number of evaluation rows to answer at each evaluation.
        generation_max_new_tokens: longest answer in tokens.
        eval_metrics: metrics of generated answers that each evaluation computes, separated by commas.
        eval_metrics_samples: largest number of evaluation rows that are answered for them.
    """

    generation_samples: int = field(
        default=3,
        metadata={
            "help": "Number of evaluation rows whose answers are written to samples.jsonl at each evaluation."
        },
    )
    generation_max_new_tokens: int = field(
        default=64, metadata={"help": "Longest generated answer in tokens."}
    )
    eval_metrics: str | None = field(
        default=None,
        metadata={
            "help": "Metrics of generated answers that each evaluation computes, such as bleu,token_f1 (docs/metrics.md "
            "lists them); --metric_for_best_model may name one of their figures."
        },
    )
    eval_metrics_samples: int = field(
        default=64,
        metadata={
            "help": "Largest number of evaluation rows that are answered for --eval_metrics, evenly spread."
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eval_metrics is None:
            refuse_without(self, "eval_metrics", ("eval_metrics_samples",))
        elif self.eval_metrics_samples < 1:
            raise VividMedError(
                f"--eval_metrics_samples {self.eval_metrics_samples}: give at least 1, or leave --eval_metrics out"
            )


@dataclass
class VlmTrainingArguments(AnsweringTrainingArguments):
    """Training arguments of stage ``vlm``.

    Args:
        > Parameters that control answers before and after training

        closed_question_samples: number of evaluation rows with one right answer to score before and after training.
    """

    closed_question_samples: int = field(
        default=200,
        metadata={
            "help": "Number of evaluation rows with one right answer to score before and after training."
        },
    )
