"""Composes short reports from the masks of a view, with phrases that name the masked targets."""

from dataclasses import dataclass

from vividmed.data.sample.measures import extent_mm, is_measurable
from vividmed.data.sample.targets import LESIONS, PAIRS, UNREPORTED, enumerate_names
from vividmed.data.sample.views import View, generator

_MAX_TARGETS = 6
_MAX_ABSENT = 2


@dataclass(frozen=True)
class Phrase:
    """Characters ``start`` to ``end`` of a report, and the targets that they name."""

    text: str
    start: int
    end: int
    targets: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """A report without markers and its phrases in order."""

    text: str
    phrases: tuple[Phrase, ...]

    @property
    def marked(self) -> str:
        """The text with every phrase between ``<p>`` and ``</p>``."""
        pieces, end = [], 0
        for phrase in self.phrases:
            pieces += [self.text[end : phrase.start], f"<p>{phrase.text}</p>"]
            end = phrase.end
        return "".join([*pieces, self.text[end:]])


class _Writer:
    """Collects text and the positions of phrases in it."""

    def __init__(self) -> None:
        self.text = ""
        self.phrases: list[Phrase] = []

    def write(self, text: str) -> None:
        self.text += text

    def name(self, text: str, *targets: str) -> None:
        start = len(self.text)
        self.text += text
        self.phrases.append(Phrase(text, start, len(self.text), targets))


def compose_report(view: View) -> Report:
    """Report lesions and the largest organs that are present, with side and extent, and some that are absent.

    Targets that are barely visible are not mentioned.

    Args:
        view: a volume, or a 2D view of known plane.
    """
    writer = _Writer()
    writer.write(_opening(view))
    random = generator(f"{view.name} report")
    by_size = sorted(view.reportable, key=lambda target: int(view.masks[target].sum()), reverse=True)
    lesions = [target for target in by_size if target in LESIONS]
    organs = [target for target in by_size if target not in LESIONS][:_MAX_TARGETS]
    for target in lesions:
        writer.write(" There is a ")
        writer.name(target, target)
        if target in view.sides:
            writer.write(f" on the {view.sides[target]} side")
        if view.affine is not None and is_measurable(view.masks[target]):
            x, y, z = extent_mm(view.masks[target], view.affine)
            writer.write(f", measuring {x} x {y} x {z} mm")
        writer.write(".")
    for plural, pair in PAIRS.items():
        if set(pair) <= set(organs) and random.random() < 0.5:
            organs = [target for target in organs if target not in pair]
            writer.write(" Both ")
            writer.name(plural, *pair)
            writer.write(" are visible.")
    sided = [target for target in organs if target in view.sides and not target.startswith(("left", "right"))]
    for target in sided[:1]:
        organs.remove(target)
        writer.write(" The ")
        writer.name(target, target)
        writer.write(f" lies on the {view.sides[target]} side.")
    for number, target in enumerate(organs):
        last = number == len(organs) - 1
        writer.write(" The " if number == 0 else " and the " if last else ", the ")
        writer.name(target, target)
    if organs:
        writer.write(" is visible." if len(organs) == 1 else " are visible.")
    reported = [target for target in view.absent if target not in UNREPORTED]
    absent = [str(target) for target in random.permutation(reported)[:_MAX_ABSENT]]
    writer.write("".join(f" No {target} is seen." for target in absent if target in LESIONS))
    absent = [target for target in absent if target not in LESIONS]
    if absent:
        names = enumerate_names(f"the {target}" for target in absent)
        writer.write(f" {names[0].upper()}{names[1:]} {'is' if len(absent) == 1 else 'are'} not seen.")
    return Report(writer.text, tuple(writer.phrases))


def _opening(view: View) -> str:
    if view.plane is None:
        return f"{view.modality} volume."
    what = view.modality if view.modality == "X-ray" else f"{view.modality} slice"
    return f"{view.plane.capitalize()} {what}."
