"""Wordings of questions: chosen at random, filled in, grammar kept."""

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
    """What an image may be called: ``radiograph`` for X-rays, ``scan`` for other modalities, neither for None."""
    key = "any" if modality is None else "x_ray" if "x-ray" in modality.lower() else "scan"
    return tuple(_templates()["image_words"][key])


def render_template(
    topic: str,
    generator: np.random.Generator,
    *,
    modality: str | None = None,
    names: NounPhrase | None = None,
) -> str:
    """One wording of a topic.

    Args:
        topic: key of ``templates.yaml``.
        generator: draws the wording and what the image is called.
        modality: of the image; None where the question must not give it away.
        names: what the placeholder ``{names}`` stands for.
    """
    template = choose(wordings(topic), generator)
    values = {"image": choose(image_words(modality), generator)}
    if names is not None:
        values |= {"names": names.text, **agreement(plural=names.plural)}
    return sentence_case(template.format(**values))


def choose(options: Sequence[str], generator: np.random.Generator) -> str:
    """One of the options, each with the same probability."""
    return options[int(generator.integers(len(options)))]


@cache
def _templates() -> Mapping[str, Any]:
    return yaml.safe_load(
        files("vividmed.data.conversations").joinpath("templates.yaml").read_text(encoding="utf-8")
    )
