"""WordNet 3.0 for METEOR, from nltk's data or from a system package."""

import io
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import nltk
from nltk.corpus.reader.wordnet import WordNetCorpusReader

from vividmed.errors import VividMedError

SYSTEM_FOLDERS = (Path("/usr/share/wordnet"), Path("/usr/local/share/wordnet"))

# Lexicographer files of WordNet 3.0 in the order of their numbers; system packages leave this list out.
_LEXICOGRAPHER_FILES = {
    "adj": ("all", "pert"),
    "adv": ("all",),
    "noun": (
        *("Tops", "act", "animal", "artifact", "attribute", "body", "cognition", "communication", "event"),
        *("feeling", "food", "group", "location", "motive", "object", "person", "phenomenon", "plant"),
        *("possession", "process", "quantity", "relation", "shape", "state", "substance", "time"),
    ),
    "verb": (
        *("body", "change", "cognition", "communication", "competition", "consumption", "contact"),
        *("creation", "emotion", "motion", "perception", "possession", "social", "stative", "weather"),
    ),
}
_PART_NUMBERS = {"noun": 1, "verb": 2, "adj": 3, "adv": 4}


class _SystemWordNet(WordNetCorpusReader):
    """WordNet as Debian's packages ``wordnet-base`` and ``wordnet-sense-index`` lay it down."""

    def open(self, file: str) -> Any:
        return io.StringIO(_lexnames()) if file == "lexnames" else super().open(file)

    def map_wn(self, version: str = "wordnet") -> None:
        """Only multilingual look-ups need a map between versions."""


@cache
def find_wordnet() -> Any:
    """A reader of WordNet 3.0.

    Raises:
        VividMedError: it is not installed.
    """
    try:
        nltk.data.find("corpora/wordnet.zip")
    except LookupError:
        pass
    else:
        from nltk.corpus import wordnet

        return wordnet
    for folder in SYSTEM_FOLDERS:
        if (folder / "data.noun").is_file() and (folder / "index.sense").is_file():
            nltk.data.path.append(str(folder))  # nltk opens files below its own paths only
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it has no other language, which METEOR does not need
                return _SystemWordNet(str(folder), None)
    raise VividMedError(
        "METEOR needs WordNet 3.0, which was not found: install the packages wordnet-base and wordnet-sense-index, "
        "or nltk's corpus 'wordnet', or leave the metric out"
    )


def _lexnames() -> str:
    files = [(part, name) for part, names in _LEXICOGRAPHER_FILES.items() for name in names]
    return "".join(
        f"{number:02d}\t{part}.{name}\t{_PART_NUMBERS[part]}\n"
        for number, (part, name) in enumerate([*files, ("adj", "ppl")])
    )
