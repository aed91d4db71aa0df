"""Short answers: exact match, token F1, and accuracy of closed (yes or no) and open questions."""

import re
import string
from collections import Counter

from vividmed.metrics.metric import MeanMetric, f1, ratio

_PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation, " "))
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_CLOSED = ("yes", "no")
_NAMED = re.compile(r"\s*results:[^:]*:\s*(yes|no)\W*", re.IGNORECASE)
"""The form in which the training conversations answer about one target: ``Results: liver: yes.``"""


class ExactMatch(MeanMetric):
    """Equality after lower-casing, as in the published evaluation: ``Yes.`` is not ``yes``."""

    description = "exact match after lower-casing"

    def score_item(self, prediction: str, reference: str) -> dict[str, float]:
        return {"exact_match": float(prediction.lower() == reference.lower())}


class TokenF1(MeanMetric):
    """F1, precision and recall of words, counted with repetition; case, punctuation and articles are left out.

    Where the reference has no word, only an empty prediction is right.
    """

    description = "overlap of words"

    def score_item(self, prediction: str, reference: str) -> dict[str, float]:
        said, wanted = (normalize(text).split() for text in (prediction, reference))
        if not wanted or not said:
            same = float(said == wanted)
            return {"token_f1": same, "token_precision": same, "token_recall": same}
        shared = (Counter(said) & Counter(wanted)).total()
        precision, recall = ratio(shared, len(said)), ratio(shared, len(wanted))
        return {"token_f1": f1(precision, recall), "token_precision": precision, "token_recall": recall}


class Accuracy(MeanMetric):
    """Accuracy of closed questions, whose reference is yes or no, and of open ones, whose reference is anything else.

    ``Results: liver: yes.``, the form of answers about one target in training, is a closed reference too.

    ``closed_accuracy``: the first *yes* or *no* of the prediction is that of the reference.
    ``closed_unparsed``: share of closed questions whose prediction says neither; they count as wrong.
    ``open_accuracy``: the texts are equal but for case, punctuation, articles and white space.
    ``accuracy``: of all questions.
    """

    description = "accuracy of closed and open questions"

    def score_item(self, prediction: str, reference: str) -> dict[str, float]:
        wanted, said = normalize(reference), normalize(prediction)
        if named := _NAMED.fullmatch(reference):
            wanted = named[1].lower()
        if wanted in _CLOSED:
            answer = next((word for word in said.split() if word in _CLOSED), None)
            correct = float(answer == wanted)
            return {
                "accuracy": correct,
                "closed_accuracy": correct,
                "closed_unparsed": float(answer is None),
            }
        correct = float(said == wanted)
        return {"accuracy": correct, "open_accuracy": correct}


def normalize(text: str) -> str:
    """Lower case, without punctuation, articles and repeated white space.

    A text of nothing else, such as the answers *A* or *+*, keeps its articles or its punctuation: only an empty text
    becomes an empty one.
    """
    lower = text.lower()
    words = lower.translate(_PUNCTUATION)
    forms = (_ARTICLES.sub(" ", words), words, lower)
    return next((" ".join(form.split()) for form in forms if form.strip()), "")
