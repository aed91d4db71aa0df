"""Arguments that choose the model, its precision and its adapters, on top of TRL's own."""

from dataclasses import dataclass, field
from typing import Literal

from trl import ModelConfig

from vividmed.errors import VividMedError
from vividmed.hub.base_model import find_base_model_id
from vividmed.training.adapters.groups import GROUPS, PUBLISHED, WHOLE_TOWER, check_groups
from vividmed.training.settings.refused_arguments import refuse_without


@dataclass
class ModelArguments(ModelConfig):
    """Arguments that choose the model, its precision and its adapters.

    Args:
        > Parameters that describe the base model

        base_model_id: Hub id of the model in ``model_name_or_path``, for the card.

        > Parameters that choose what is trained

        freeze_vision: whether the vision tower stays as it is, without adapters.
        adapter_groups: with ``use_peft``, which parts of the model get adapters.
        adapt_language: with ``use_peft``, whether the language experts get adapters.
        train_boundary_tokens: with ``use_peft``, whether the begin- and end-of-image tokens are trained, too.
        continue_adapter: whether the adapter in ``model_name_or_path`` is trained further, or merged and replaced.
        max_image_tokens: largest number of visual tokens per image; None for that of the model's processor.

        > Parameters that control precision

        trainable_dtype: precision of the weights that are trained.
    """

    base_model_id: str | None = field(
        default=None,
        metadata={
            "help": "Hub id of the model in --model_name_or_path, if that is a local copy: the model card and adapters name "
            "it as their base model."
        },
    )
    freeze_vision: bool = field(
        default=False, metadata={"help": "Leave the vision tower as it is, without adapters."}
    )
    adapter_groups: list[str] | None = field(
        default=None,
        metadata={
            "help": "With --use_peft: parts of the model to train, one or more of "
            + "; ".join(f"{name} ({text})" for name, text in GROUPS.items())
            + ". All but 'published' (the default) train only the rows of the added tokens in embedding and head, and no "
            "norms, which takes much less memory."
        },
    )
    adapt_language: bool | None = field(
        default=None,
        metadata={
            "nargs": "?",
            "const": True,
            "help": "With --use_peft: put adapters on the language experts. Default: only if the vision tower is trained, "
            "as published.",
        },
    )
    train_boundary_tokens: bool = field(
        default=False,
        metadata={
            "help": "With --use_peft: train the begin- and end-of-image tokens, too. Published: frozen."
        },
    )
    continue_adapter: bool | None = field(
        default=None,
        metadata={
            "nargs": "?",
            "const": True,
            "help": "Where --model_name_or_path is an adapter: true trains it further; false merges it into its base model "
            "and starts anew, with a new adapter if --use_peft is given. Default: true.",
        },
    )
    max_image_tokens: int | None = field(
        default=None,
        metadata={
            "help": "Largest number of visual tokens per image, saved with the processor. Default: that of the model."
        },
    )
    trainable_dtype: Literal["float32", "as_loaded"] = field(
        default="float32",
        metadata={
            "help": "Precision of the weights that are trained. 'float32' keeps small updates; computing in bfloat16 is up "
            "to --bf16. 'as_loaded' takes that of --dtype: pure bfloat16 training as published, which saves memory, but "
            "rounds most updates of small learning rates away."
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        quantized = self.load_in_4bit or self.load_in_8bit
        if quantized and not self.use_peft:
            raise VividMedError(
                "load_in_4bit and load_in_8bit need use_peft: quantised weights cannot be trained"
            )
        if not self.use_peft:
            refuse_without(self, "use_peft", ADAPTER_ARGUMENTS)
        if self.adapter_groups is not None:
            check_groups(self.adapter_groups)
            for name in ("lora_target_modules", "lora_modules_to_save"):
                if getattr(self, name) is not None:
                    raise VividMedError(
                        f"--adapter_groups and --{name} both choose modules; give one of them"
                    )
            if self.adapt_language is not None and self.adapter_groups != [PUBLISHED]:
                raise VividMedError(
                    "--adapt_language belongs to the group 'published'; name language-experts in --adapter_groups, or "
                    "leave it out there"
                )
            if WHOLE_TOWER in self.adapter_groups:
                self._check_whole_tower(quantized)
        if not self.load_in_4bit:
            refuse_without(self, "load_in_4bit", QUANTIZATION_ARGUMENTS)
        if self.model_name_or_path is None:
            refuse_without(
                self, "model_name_or_path", ("model_revision", "base_model_id", "continue_adapter")
            )
        find_base_model_id(self.model_name_or_path, stated=self.base_model_id)

    def _check_whole_tower(self, quantized: bool) -> None:
        for contradicts, argument, reason in (
            (
                quantized,
                "load_in_4bit and load_in_8bit",
                "quantised weights cannot be trained: take vision-tower",
            ),
            (
                self.train_boundary_tokens,
                "train_boundary_tokens",
                "the tower contains these tokens: leave it out",
            ),
            (
                PUBLISHED in (self.adapter_groups or ()),
                "published",
                "it has adapters on the tower: name one of them",
            ),
        ):
            if contradicts:
                raise VividMedError(f"--adapter_groups {WHOLE_TOWER} contradicts {argument}; {reason}")


ADAPTER_ARGUMENTS = (
    "lora_r",
    "lora_alpha",
    "lora_dropout",
    "lora_target_modules",
    "lora_target_parameters",
    "lora_modules_to_save",
    "lora_task_type",
    "use_rslora",
    "use_dora",
    "adapter_groups",
    "adapt_language",
    "train_boundary_tokens",
)
QUANTIZATION_ARGUMENTS = ("bnb_4bit_quant_type", "use_bnb_nested_quant", "bnb_4bit_quant_storage")
