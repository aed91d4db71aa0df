"""What the stages that ground can be told, beside the arguments of all stages."""

from dataclasses import dataclass, field

from vividmed.models.grounding import GroundingLosses
from vividmed.models.segmenter.losses import InstanceLoss, MaskLoss


@dataclass
class LossArguments:
    """Weights of the grounding losses; the defaults are the published ones of visual grounding.

    Args:
        dice_weight: weight of the Dice loss of masks.
        focal_weight: weight of the focal loss of masks.
        focal_alpha: weight of positive voxels in the focal loss.
        score_weight: weight of the scores of boxes.
        score_alpha: weight of found instances in the focal loss of scores.
        box_l1_weight: weight of the L1 distance of boxes.
        box_giou_weight: weight of the generalised IoU of boxes.
    """

    dice_weight: float = field(default=2.0, metadata={"help": "Weight of the Dice loss of masks."})
    focal_weight: float = field(default=2.0, metadata={"help": "Weight of the focal loss of masks."})
    focal_alpha: float | None = field(
        default=None,
        metadata={
            "help": "Weight of positive voxels in the focal loss of masks. Default: all weigh the same."
        },
    )
    score_weight: float = field(
        default=2.0, metadata={"help": "Weight of the focal loss of the scores of boxes."}
    )
    score_alpha: float = field(
        default=0.85, metadata={"help": "Weight of found instances in the focal loss of scores."}
    )
    box_l1_weight: float = field(default=5.0, metadata={"help": "Weight of the L1 distance of boxes."})
    box_giou_weight: float = field(default=2.0, metadata={"help": "Weight of the generalised IoU of boxes."})

    def losses(self) -> GroundingLosses:
        """The losses of masks and of instances with these weights."""
        return GroundingLosses(
            masks=MaskLoss(
                dice_weight=self.dice_weight, focal_weight=self.focal_weight, focal_alpha=self.focal_alpha
            ),
            instances=InstanceLoss(
                score_weight=self.score_weight,
                box_l1_weight=self.box_l1_weight,
                box_giou_weight=self.box_giou_weight,
                focal_alpha=self.score_alpha,
            ),
        )


@dataclass
class GroundingArguments(LossArguments):
    """How a language model and its segmenters are trained together.

    Args:
        segmenter: folder or Hub id of a segmenter that takes the place of the model's.
        instance_segmenter: the same for the instance segmenter.
        freeze_segmenter: leave the segmenter untrained.
        freeze_instance_segmenter: leave the instance segmenter untrained.
        augment: mirror, turn and brighten the images of localization rows.
        equalize: probability of equalising the histogram of a grounded report's image.
    """

    segmenter: str | None = field(
        default=None,
        metadata={
            "help": "Folder or Hub id of a segmenter, such as align-sam leaves, that takes the place of the model's."
        },
    )
    instance_segmenter: str | None = field(
        default=None, metadata={"help": "The same for the instance segmenter, such as align-isam leaves."}
    )
    freeze_segmenter: bool = field(default=False, metadata={"help": "Leave the segmenter untrained."})
    freeze_instance_segmenter: bool = field(
        default=False, metadata={"help": "Leave the instance segmenter untrained."}
    )
    augment: bool = field(
        default=True,
        metadata={
            "help": "Mirror, turn and brighten images of localization rows in training, names and labels with them."
        },
    )
    equalize: float = field(
        default=0.0,
        metadata={
            "help": "Probability of equalising the histogram of a grounded report's image in training."
        },
    )

    @property
    def sources(self) -> dict[str, str]:
        """Where segmenters come from that are not the model's own, by kind."""
        named = {"segmenter": self.segmenter, "instance_segmenter": self.instance_segmenter}
        return {kind: source for kind, source in named.items() if source is not None}

    @property
    def frozen(self) -> list[str]:
        """Kinds of segmenters that are not trained."""
        flags = {"segmenter": self.freeze_segmenter, "instance_segmenter": self.freeze_instance_segmenter}
        return [kind for kind, is_frozen in flags.items() if is_frozen]


@dataclass
class AlignmentArguments(LossArguments):
    """How a segmenter is trained alone.

    Args:
        model_name_or_path: segmenter to start from; a tiny one with random weights when not given.
        max_image_tokens: patches of an image.
        max_slice_tokens: patches of a volume along depth.
        low_image_tokens: patches of an image at low resolution; with 0 there is no low resolution.
        low_slice_tokens: patches along depth at low resolution.
        max_present: present targets asked for in a training image.
        max_targets: targets asked for in a training image, filled up with absent ones.
        augment: mirror, turn and brighten images in training.
        crop: cut volumes in training.
    """

    model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "Folder or Hub id of a segmenter to start from. Default: a tiny one with random weights."
        },
    )
    max_image_tokens: int = field(default=2048, metadata={"help": "Largest number of patches of an image."})
    max_slice_tokens: int = field(default=8, metadata={"help": "Largest number of patches along depth."})
    low_image_tokens: int = field(
        default=600,
        metadata={
            "help": "Patches at low resolution, which 40 % of the training images are shown at; 0: none."
        },
    )
    low_slice_tokens: int = field(default=6, metadata={"help": "Patches along depth at low resolution."})
    max_present: int = field(
        default=14, metadata={"help": "Largest number of present targets asked for in a training image."}
    )
    max_targets: int = field(
        default=16,
        metadata={
            "help": "Targets asked for in a training image; absent ones fill up what present ones leave."
        },
    )
    augment: bool = field(
        default=True, metadata={"help": "Mirror, turn and brighten images in training, names with them."}
    )
    crop: bool = field(default=True, metadata={"help": "Cut volumes in training (masks only)."})
