"""Arguments of the random deformation of training images, which all stages share."""

from dataclasses import dataclass, field

from vividmed.data.batches.deformation import DeformationSettings
from vividmed.errors import VividMedError


@dataclass
class DeformationArguments:
    """Ranges of random changes of training images that keep anatomy true; all are off by default, as published.

    Args:
        > Parameters that control augmentation

        deform_rotation: largest rotation in the plane.
        deform_zoom: largest change of size and field of view.
        deform_shift: largest shift in the plane.
        deform_elastic: largest displacement of an elastic deformation.
        deform_gamma: largest change of the exponent of intensities.
        deform_contrast: largest change of contrast and brightness.
        deform_resolution: largest loss of resolution.
        deform_noise: largest noise.
    """

    deform_rotation: float = field(
        default=0.0,
        metadata={"help": "Largest random rotation of training images in the plane, in degrees."},
    )
    deform_zoom: float = field(
        default=0.0,
        metadata={"help": "Largest random change of size, as a share; the field of view changes with it."},
    )
    deform_shift: float = field(
        default=0.0, metadata={"help": "Largest random shift along each edge, as a share of the edge."}
    )
    deform_elastic: float = field(
        default=0.0,
        metadata={"help": "Largest displacement of a random elastic deformation, as a share of the edge."},
    )
    deform_gamma: float = field(
        default=0.0,
        metadata={"help": "Largest logarithm of a random exponent of intensities in [0, 1]."},
    )
    deform_contrast: float = field(
        default=0.0, metadata={"help": "Largest random change of contrast and brightness, as a share."}
    )
    deform_resolution: float = field(
        default=0.0,
        metadata={"help": "Largest random loss of resolution: 1 makes pixels up to twice as large."},
    )
    deform_noise: float = field(
        default=0.0,
        metadata={"help": "Largest standard deviation of random noise on intensities in [0, 1]."},
    )

    def __post_init__(self) -> None:
        for name, value in vars(self.deformation()).items():
            if value < 0:
                raise VividMedError(f"--deform_{name} {value:g}: give 0 (off) or more")

    def deformation(self) -> DeformationSettings:
        """The ranges, for the stage's collator."""
        return DeformationSettings(
            rotation=self.deform_rotation,
            zoom=self.deform_zoom,
            shift=self.deform_shift,
            elastic=self.deform_elastic,
            gamma=self.deform_gamma,
            contrast=self.deform_contrast,
            resolution=self.deform_resolution,
            noise=self.deform_noise,
        )
