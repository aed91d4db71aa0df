"""Stage ``finetune``: a trained model learns one data set, of texts or of grounded rows."""

from dataclasses import MISSING, dataclass, field, fields
from typing import ClassVar, Literal

from vividmed.data.schema import RowKind
from vividmed.errors import VividMedError
from vividmed.training.rows import find_row_kind
from vividmed.training.settings.arguments import VlmDataArguments, VlmTrainingArguments
from vividmed.training.settings.grounding_arguments import GroundingArguments
from vividmed.training.settings.model_arguments import ModelArguments
from vividmed.training.stages.grounding import GroundingStage
from vividmed.training.stages.stage import Stage
from vividmed.training.stages.vlm import VlmStage


@dataclass
class FinetuneDataArguments(VlmDataArguments):
    """Arguments that choose the rows of stage ``finetune``.

    Args:
        > Parameters that choose rows

        row_kind: kind of the rows; ``auto`` finds it by the columns of the data set.
    """

    row_kind: Literal["auto", "vision_language", "localization", "grounded_report"] = field(
        default="auto",
        metadata={
            "help": "Kind of the rows: vision_language (questions, reports), localization (targets with masks or boxes) or "
            "grounded_report. Default: found by the columns; vision_language for the embedded sample."
        },
    )


@dataclass
class FinetuneStage(GroundingStage):
    """Fine-tune on one data set; :meth:`resolved` gives the stage for the rows that it has."""

    name = "finetune"
    row_kind: ClassVar[RowKind] = "grounded_report"
    configurations = ("{}_small", "{}_small", "{}_tiny")

    data_args: FinetuneDataArguments
    model_args: ModelArguments
    grounding_args: GroundingArguments
    args: VlmTrainingArguments

    def resolved(self) -> Stage:
        kind = self.data_args.row_kind
        if kind == "auto":
            kind = find_row_kind(self.data_args)
        if kind == "vision_language":
            self._refuse_grounding()
            return _TextFinetuneStage(self.data_args, self.model_args, self.args)
        return self if kind == "grounded_report" else _TargetFinetuneStage(*self.groups)

    def _refuse_grounding(self) -> None:
        """Stop at arguments of segmenters, which texts do not train."""
        for each in fields(GroundingArguments):
            default = each.default if each.default is not MISSING else None
            if getattr(self.grounding_args, each.name) != default:
                raise VividMedError(
                    f"--{each.name} has no effect here: the rows have texts without masks or boxes; leave it out"
                )


class _TargetFinetuneStage(FinetuneStage):
    row_kind: ClassVar[RowKind] = "localization"


class _TextFinetuneStage(VlmStage):
    name = "finetune"
