"""Wordings of questions, chosen at random and filled in so that they agree in number."""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import yaml

from vividmed.data.conversations.grammar import NounPhrase, agreement, sentence_case


@cache
def wordings(topic: str) -> tuple[str, ...]:
    """All wordings of one topic of ``templates.yaml``."""
    return tuple(_templates()[topic])


def image_words(modality: str | None) -> tuple[str, ...]:
    """Words for an image: with ``radiograph`` for X-rays, ``scan`` for other modalities, neither for None."""
    key = "any" if modality is None else "x_ray" if "x-ray" in modality.lower() else "scan"
    return tuple(_templates()["image_words"][key])


def render_template(
    topic: str,
    generator: np.random.Generator,
    *,
    modality: str | None = None,
    names: NounPhrase | None = None,
) -> str:
    """Draw one wording of a topic and fill it in.

    Args:
        topic: key of ``templates.yaml``.
        generator: draws the wording and the word for the image.
        modality: modality of the image; None if the question must not give it away.
        names: replaces the placeholder ``{names}``.
    """
    template = choose(wordings(topic), generator)
    values = {"image": choose(image_words(modality), generator)}
    if names is not None:
        values |= {"names": names.text, **agreement(plural=names.plural)}
    return sentence_case(template.format(**values))


def choose(options: Sequence[str], generator: np.random.Generator) -> str:
    """Draw one of the options, each with the same probability."""
    return options[int(generator.integers(len(options)))]


@cache
def _templates() -> Mapping[str, Any]:
    return yaml.safe_load(
        files("vividmed.data.conversations").joinpath("templates.yaml").read_text(encoding="utf-8")
    )
