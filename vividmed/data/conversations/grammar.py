"""Names of targets in English sentences: articles, number, enumeration."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_MODIFIERS = re.compile(r"\s(?:of|in|on|between|or)\s.*")
_IRREGULAR_PLURALS = frozenset({"vertebrae", "bronchi", "hila", "sequelae", "metastases"})
_SINGULAR_ENDINGS = ("us", "is", "ss", "as", "ns")
_NUMBERED = re.compile(r".*(?:\d|\s[IVX]+)")
_WITHOUT_ARTICLE = frozenset({"bone", "muscle", "skeletal muscle", "fat", "adipose tissue"})
_ONE_OF_MANY = frozenset(
    {"artery", "vein", "vessel", "vertebra", "rib", "structure", "disc", "disk", "lymph node"}
)
_COUNTABLE_ANOMALIES = frozenset(
    {
        *("abnormality", "lesion", "tumor", "tumour", "neoplasm", "mass", "malignancy", "metastasis", "cyst"),
        *(
            "glioma",
            "glioblastoma",
            "meningioma",
            "angiomyolipoma",
            "infarct",
            "bleed",
            "core",
            "nodule",
            "node",
        ),
        *(
            "micronodule",
            "opacity",
            "density",
            "infiltrate",
            "effusion",
            "pneumothorax",
            "hydrothorax",
            "embolus",
        ),
        *(
            "hernia",
            "cavity",
            "fracture",
            "rib",
            "clavicle",
            "pelvis",
            "bone",
            "heart",
            "silhouette",
            "shift",
        ),
        *(
            "aorta",
            "artery",
            "mediastinum",
            "cardiomediastinum",
            "calcification",
            "plaque",
            "curvature",
            "device",
        ),
        *("tube", "pleura", "wall", "line", "carcinoma", "pattern", "sequela"),
    }
)


@dataclass(frozen=True)
class NounPhrase:
    """A term with its article, and whether its verb is plural."""

    text: str
    plural: bool


def noun_phrase(term: str, *, anomaly: bool) -> NounPhrase:
    """Give a term its article: ``the liver``, ``a rib``, ``an enlarged heart``, ``atelectasis``, ``C1``, ``both lungs``.

    Organs are known to exist and take *the*. A structure that the body has many of and a countable anomaly take *a*.
    Names of states, and names that end in a number, take no article.

    Args:
        term: a name or synonym of the taxonomy.
        anomaly: whether it is an anomaly rather than a structure of the body.
    """
    core = _MODIFIERS.sub("", term)
    head = core.split()[-1]
    if " and " in core:
        return NounPhrase(term if anomaly else f"the {term}", plural=True)
    plural = head in _IRREGULAR_PLURALS or (head.endswith("s") and not head.endswith(_SINGULAR_ENDINGS))
    if plural:
        return NounPhrase(term if anomaly or term.startswith("both ") else f"the {term}", plural=True)
    if _NUMBERED.fullmatch(core) or term in _WITHOUT_ARTICLE:
        return NounPhrase(term, plural=False)
    if anomaly:
        article = _indefinite(term) if head in _COUNTABLE_ANOMALIES else ""
        return NounPhrase(f"{article} {term}".strip(), plural=False)
    return NounPhrase(f"{_indefinite(term) if _is_one_of_many(term) else 'the'} {term}", plural=False)


def enumerate_phrases(phrases: Sequence[NounPhrase]) -> NounPhrase:
    """Join phrases as in a sentence: ``a``, ``a and b``, ``a, b and c``; several take a plural verb."""
    *first, last = (phrase.text for phrase in phrases)
    if not first:
        return phrases[0]
    return NounPhrase(f"{', '.join(first)} and {last}", plural=True)


def agreement(*, plural: bool) -> dict[str, str]:
    """Words that agree in number with the subject of a sentence, by placeholder."""
    if plural:
        return {"be": "are", "do": "do", "have": "have", "it": "they", "each": "each of them"}
    return {"be": "is", "do": "does", "have": "has", "it": "it", "each": "it"}


def sentence_case(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


def _is_one_of_many(term: str) -> bool:
    """Whether the term names any one of many structures, such as ``rib``, ``left rib`` or ``cervical vertebra``."""
    words = term.split()
    kind = {"left", "right", "blood", "cervical", "thoracic", "lumbar", "intervertebral", "spinal", "osseous"}
    return words[-1] in _ONE_OF_MANY and set(words[:-1]) <= kind


def _indefinite(term: str) -> str:
    return "an" if term[0] in "aeiou" else "a"
