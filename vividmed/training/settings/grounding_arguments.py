"""Arguments of the stages that train segmenters, in addition to those of every stage."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from vividmed.models.phrases.grounding import GroundingLosses
from vividmed.models.segmenter.instance_loss import InstanceLoss
from vividmed.models.segmenter.losses import MaskLoss


@dataclass
class MaskLossArguments:
    """Weights of the losses of masks; the defaults are the published ones of visual grounding.

    Args:
        dice_weight: weight of the Dice loss of masks.
        focal_weight: weight of the focal loss of masks.
        focal_alpha: weight of positive voxels in the focal loss of masks; None weighs all voxels alike.
    """

    dice_weight: float = field(default=2.0, metadata={"help": "Weight of the Dice loss of masks."})
    focal_weight: float = field(default=2.0, metadata={"help": "Weight of the focal loss of masks."})
    focal_alpha: float | None = field(
        default=None,
        metadata={
            "help": "Weight of positive voxels in the focal loss of masks. Default: all voxels weigh the same."
        },
    )

    def mask_loss(self) -> MaskLoss:
        """Loss of masks."""
        return MaskLoss(
            dice_weight=self.dice_weight, focal_weight=self.focal_weight, focal_alpha=self.focal_alpha
        )


@dataclass
class BoxLossArguments:
    """Weights of the losses of boxes; the defaults are the published ones of visual grounding.

    Args:
        score_weight: weight of the focal loss of the boxes' scores.
        score_alpha: weight of found instances in the focal loss of scores.
        box_l1_weight: weight of the L1 distance of boxes.
        box_giou_weight: weight of the generalised IoU loss of boxes.
    """

    score_weight: float = field(
        default=2.0, metadata={"help": "Weight of the focal loss of the boxes' scores."}
    )
    score_alpha: float = field(
        default=0.85, metadata={"help": "Weight of found instances in the focal loss of scores."}
    )
    box_l1_weight: float = field(default=5.0, metadata={"help": "Weight of the L1 distance of boxes."})
    box_giou_weight: float = field(
        default=2.0, metadata={"help": "Weight of the generalised IoU loss of boxes."}
    )

    def instance_loss(self) -> InstanceLoss:
        """Loss of boxes and scores."""
        return InstanceLoss(
            score_weight=self.score_weight,
            box_l1_weight=self.box_l1_weight,
            box_giou_weight=self.box_giou_weight,
            focal_alpha=self.score_alpha,
        )


@dataclass
class OversamplingArguments:
    """Which rows are drawn more often.

    Args:
        oversample: targets with factors; a row counts as often as the largest factor of the targets that it shows.
    """

    oversample: str | None = field(
        default=None,
        metadata={
            "help": "Targets whose rows are drawn more often in an epoch, such as 'left lung=3,right lung=3'."
        },
    )


@dataclass
class GroundingArguments(OversamplingArguments, BoxLossArguments, MaskLossArguments):
    """Arguments of the stages that train a language model together with its segmenters.

    Args:
        > Parameters that choose and freeze segmenters

        segmenter: folder or Hub id of a segmenter that replaces the model's own.
        instance_segmenter: folder or Hub id of an instance segmenter that replaces the model's own.
        freeze_segmenter: whether the segmenter stays as it is.
        freeze_instance_segmenter: whether the instance segmenter stays as it is.

        > Parameters that control augmentation

        augment: whether images of localization rows are mirrored, turned and brightened in training.
        equalize: probability of equalising the histogram of a grounded report's image in training.
    """

    segmenter: str | None = field(
        default=None,
        metadata={
            "help": "Folder or Hub id of a segmenter, such as align-sam leaves, that replaces the model's own."
        },
    )
    instance_segmenter: str | None = field(
        default=None,
        metadata={
            "help": "Folder or Hub id of an instance segmenter, such as align-isam leaves, that replaces the model's own."
        },
    )
    freeze_segmenter: bool = field(default=False, metadata={"help": "Do not train the segmenter."})
    freeze_instance_segmenter: bool = field(
        default=False, metadata={"help": "Do not train the instance segmenter."}
    )
    augment: bool = field(
        default=True,
        metadata={
            "help": "Mirror, turn and brighten images of localization rows in training, together with their names and "
            "labels."
        },
    )
    equalize: float = field(
        default=0.0,
        metadata={
            "help": "Probability of equalising the histogram of a grounded report's image in training."
        },
    )

    def losses(self) -> GroundingLosses:
        """Losses of masks and of instances with these weights."""
        return GroundingLosses(masks=self.mask_loss(), instances=self.instance_loss())

    @property
    def sources(self) -> dict[str, str]:
        """Where segmenters come from that are not the model's own, by name of the module."""
        named = {"segmenter": self.segmenter, "instance_segmenter": self.instance_segmenter}
        return {name: source for name, source in named.items() if source is not None}

    @property
    def frozen(self) -> list[str]:
        """Names of the segmenters that are not trained."""
        flags = {"segmenter": self.freeze_segmenter, "instance_segmenter": self.freeze_instance_segmenter}
        return [name for name, is_frozen in flags.items() if is_frozen]


@dataclass
class AlignmentArguments(OversamplingArguments, ABC):
    """Arguments of the stages that train a segmenter without a language model.

    Args:
        > Parameters that choose the model

        model_name_or_path: folder or Hub id of the segmenter to start from; None makes a tiny one with random weights.

        > Parameters that control how images are shown

        max_image_tokens: largest number of patches per image.
        max_slice_tokens: largest number of patches along depth.
        low_image_tokens: largest number of patches per image at low resolution; 0 turns low resolution off.
        low_slice_tokens: largest number of patches along depth at low resolution.
        augment: whether images are mirrored, turned and brightened in training.

        > Parameters that control what is asked for

        max_present: largest number of present targets per training image.
        max_targets: number of targets per training image; absent ones fill up what present ones leave.
    """

    model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "Folder or Hub id of the segmenter to start from. Default: a tiny one with random weights."
        },
    )
    max_image_tokens: int = field(default=2048, metadata={"help": "Largest number of patches per image."})
    max_slice_tokens: int = field(default=8, metadata={"help": "Largest number of patches along depth."})
    low_image_tokens: int = field(
        default=600,
        metadata={
            "help": "Largest number of patches per image at low resolution, which 40 % of the training images are shown "
            "at; 0 turns low resolution off."
        },
    )
    low_slice_tokens: int = field(
        default=6, metadata={"help": "Largest number of patches along depth at low resolution."}
    )
    max_present: int = field(
        default=14, metadata={"help": "Largest number of present targets per training image."}
    )
    max_targets: int = field(
        default=16,
        metadata={
            "help": "Number of targets per training image; absent ones fill up what present ones leave."
        },
    )
    augment: bool = field(
        default=True,
        metadata={
            "help": "Mirror, turn and brighten images in training, together with their names and labels."
        },
    )

    @abstractmethod
    def losses(self) -> GroundingLosses:
        """The losses of the stage with their weights."""


@dataclass
class MaskAlignmentArguments(AlignmentArguments, MaskLossArguments):
    """Arguments of ``align-sam``.

    Args:
        crop: whether volumes are cropped in training.
    """

    crop: bool = field(default=True, metadata={"help": "Crop volumes in training, as published."})

    def losses(self) -> GroundingLosses:
        """The loss of masks with these weights; there are no instances."""
        return GroundingLosses(masks=self.mask_loss())


@dataclass
class BoxAlignmentArguments(AlignmentArguments, BoxLossArguments):
    """Arguments of ``align-isam``: those of every alignment, and the weights of the losses of boxes."""

    def losses(self) -> GroundingLosses:
        """The losses of boxes and scores with these weights; there are no masks."""
        return GroundingLosses(instances=self.instance_loss())
