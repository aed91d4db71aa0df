"""Composes questions about a view, with answers that follow from its labels."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import TypeVar

from vividmed.data.sample.measures import extent_mm, is_measurable, millilitres
from vividmed.data.sample.reports import compose_report
from vividmed.data.sample.targets import LESIONS, PAIRS, SIDED, with_article
from vividmed.data.sample.views import View, generator

_MODALITY = "What is the modality of this image?"
_PLANE = "In which plane is this image shown?"
_VIEW = "Is this a frontal or a lateral view?"
_PRESENCE = "Is {name} visible in this image?"
_SIDE = (
    "On which side of the body is {name}?",
    "Is {name} on the left or the right side of the body?",
)
_SIZE = ("How large is {name} in this image?", "Give the extent of {name} within this image.")
_VOLUME = (
    "What is the volume of {name} within this image?",
    "How many millilitres of {name} does this image hold?",
)
_LARGER = ("Which takes up more of this image, {a} or {b}?", "What is larger in this image, {a} or {b}?")
_COUNT = ("How many {names} are visible?", "Count the {names} in this image.")
_REPORT = ("Write a short report of this image.", "Describe what this image shows.", "Report the findings.")

_CLEARLY_LARGER = 2.0


_Item = TypeVar("_Item")


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question about one view with its answer."""

    view: View
    kind: str
    question: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Largest number of questions of each kind in a split.

    Attributes:
        modality: per modality, separately for 2D images and volumes.
        plane: per plane and radiographic view.
        presence: per target with the answer yes; the same number with no.
        finding: per type of finding.
        report: short reports.
    """

    modality: int
    plane: int
    presence: int
    finding: int
    report: int


BUDGETS = {
    "train": Budget(modality=120, plane=200, presence=120, finding=11, report=24),
    "test": Budget(modality=9, plane=9, presence=9, finding=2, report=4),
}


def ask(views: Sequence[View], budget: Budget, targets: Collection[str]) -> list[Question]:
    """Compose a split's questions.

    Modality, plane and presence are asked of images of about the whole cross-section, in one wording, and answered by
    one word. Classes are balanced: every modality and plane is asked for as often as the images allow, and every target
    as often with the answer yes as with no. A target that only ever has one answer is not asked for.

    Args:
        views: of the split.
        budget: of the split.
        targets: whose presence is asked for; see :func:`learnable_targets`.
    """
    whole = [view for view in views if view.whole and view.use != "locations"]
    located = [view for view in views if view.use != "questions"]
    return [
        *_ask_modality(whole, budget.modality),
        *_ask_plane(whole, budget.plane),
        *_ask_presence(whole, budget.presence, targets),
        *(question for find in _FINDINGS for question in _pick(_found(located, find), budget.finding)),
        *_ask_report(located, budget.report),
    ]


def learnable_targets(train: Sequence[View], test: Sequence[View]) -> frozenset[str]:
    """Targets whose presence can be learned and tested.

    Both splits show images with and without the target. In training, at least two patients do, since what one patient
    shows cannot tell a target from the patient.

    Args:
        train: views of the training split.
        test: views of the test split.
    """
    patients: dict[str, set[str]] = {}
    for view in train:
        for target in (*view.masks, *view.absent):
            patients.setdefault(target, set()).add(view.patient)
    several = {target for target, names in patients.items() if len(names) > 1}
    return frozenset(several.intersection(*(_with_both_answers(views) for views in (train, test))))


def _with_both_answers(views: Iterable[View]) -> set[str]:
    whole = [view for view in views if view.whole and view.use != "locations"]
    seen = {target for view in whole for target in view.masks}
    return seen & {target for view in whole for target in view.absent}


def _ask_modality(views: Sequence[View], count: int) -> Iterator[Question]:
    for volumes in (False, True):
        for modality in sorted({view.modality for view in views}):
            of_class = [view for view in views if view.modality == modality and view.is_volume == volumes]
            for view in _spread_over_patients(of_class, count):
                yield Question(view=view, kind="modality", question=_MODALITY, answer=f"{modality}.")


def _ask_plane(views: Sequence[View], count: int) -> Iterator[Question]:
    for plane in sorted({view.plane for view in views if view.plane}):
        of_class = [view for view in views if view.plane == plane]
        question = _VIEW if plane in ("frontal", "lateral") else _PLANE
        for view in _spread_over_patients(of_class, count):
            yield Question(view=view, kind="plane", question=question, answer=f"{plane.capitalize()}.")


def _ask_presence(views: Sequence[View], count: int, targets: Collection[str]) -> Iterator[Question]:
    for target in sorted(targets):
        seen = [view for view in views if target in view.masks]
        unseen = [view for view in views if target in view.absent]
        each = min(count, len(seen), len(unseen))
        for answer, of_class in (("Yes.", seen), ("No.", unseen)):
            for view in _spread_over_patients(of_class, each):
                question = _PRESENCE.format(name=with_article(target))
                yield Question(view=view, kind="presence", question=question, answer=answer)


def _ask_report(views: Sequence[View], count: int) -> Iterator[Question]:
    for view in _spread_over_patients([view for view in views if view.reportable], count):
        answer = compose_report(view).text
        yield Question(view=view, kind="report", question=_choose(view, "report", _REPORT), answer=answer)


def _find_side(view: View) -> Iterator[tuple[str, str]]:
    for target, side in view.sides.items():
        if target in SIDED | LESIONS:
            yield (
                _choose(view, f"side {target}", _SIDE).format(name=f"the {target}"),
                f"The {target} is on the {side} side of the body.",
            )


def _find_size(view: View) -> Iterator[tuple[str, str]]:
    if view.affine is None:
        return
    for target, mask in view.masks.items():
        if target in LESIONS and is_measurable(mask):
            x, y, z = extent_mm(mask, view.affine)
            yield (
                _choose(view, f"size {target}", _SIZE).format(name=f"the {target}"),
                f"The {target} measures {x} x {y} x {z} mm (left-right x front-back x head-foot).",
            )


def _find_volume(view: View) -> Iterator[tuple[str, str]]:
    if view.affine is None:
        return
    for target, mask in view.reportable.items():
        yield (
            _choose(view, f"volume {target}", _VOLUME).format(name=f"the {target}"),
            f"The volume of the {target} within this image is {millilitres(mask, view.affine)} ml.",
        )


def _find_larger(view: View) -> Iterator[tuple[str, str]]:
    random = generator(f"{view.name} larger")
    targets = [str(name) for name in random.permutation(list(view.reportable))]
    for a, b in zip(targets[::2], targets[1::2], strict=False):
        sizes = {name: int(view.masks[name].sum()) for name in (a, b)}
        small, large = sorted((a, b), key=sizes.__getitem__)
        if sizes[large] >= _CLEARLY_LARGER * sizes[small]:
            yield (
                _choose(view, f"larger {a}", _LARGER).format(a=f"the {a}", b=f"the {b}"),
                f"The {large} takes up more of this image.",
            )


def _find_count(view: View) -> Iterator[tuple[str, str]]:
    for plural, pair in PAIRS.items():
        organ = plural.removesuffix("s")
        seen = [name for name in pair if name in view.masks]
        if len(seen) + sum(name in view.absent for name in pair) != 2:
            continue
        answer = (
            f"No {organ} is visible.",
            f"One {organ} is visible, the {seen[0]}." if seen else "",
            f"Two {plural} are visible.",
        )[len(seen)]
        yield _choose(view, f"count {organ}", _COUNT).format(names=plural), answer


_Finder = Callable[[View], Iterable[tuple[str, str]]]
_FINDINGS: tuple[_Finder, ...] = (_find_side, _find_size, _find_volume, _find_larger, _find_count)


def _found(views: Sequence[View], find: _Finder) -> list[Question]:
    return [
        Question(view=view, kind="finding", question=question, answer=answer)
        for view in views
        for question, answer in find(view)
    ]


def _pick(questions: list[Question], count: int) -> list[Question]:
    """Spread the questions over their answers, so that no answer dominates."""
    groups: dict[str, list[Question]] = {}
    for question in questions:
        groups.setdefault(question.answer, []).append(question)
    return _in_turn(groups.values())[:count]


def _spread_over_patients(views: Sequence[View], count: int) -> list[View]:
    """Up to ``count`` views, taking patients and image kinds in turn, in an order that depends on names only."""
    shuffled = sorted(views, key=lambda view: generator(view.name).random())
    groups: dict[tuple[str, bool], list[View]] = {}
    for view in shuffled:
        groups.setdefault((view.patient, view.is_volume), []).append(view)
    return _in_turn(groups.values())[:count]


def _in_turn(groups: Iterable[Sequence[_Item]]) -> list[_Item]:
    """Take one item of every group, then a second one of every group, and so on."""
    return [item for item in chain.from_iterable(zip_longest(*groups)) if item is not None]


def _choose(view: View, topic: str, wordings: Sequence[str]) -> str:
    return wordings[int(generator(f"{view.name} {topic}").integers(len(wordings)))]
