"""Instructions and examples for language models; records and cards name them by their digest."""

import re
from dataclasses import dataclass
from functools import cache

from vividmed.data.pseudo_labels.study import digest
from vividmed.data.taxonomy import Taxonomy

Message = dict[str, str]


@dataclass(frozen=True)
class Prompt:
    """An instruction and worked examples.

    Attributes:
        instruction: system message.
        examples: pairs of input and right answer.
    """

    instruction: str
    examples: tuple[tuple[str, str], ...]

    @property
    def digest(self) -> str:
        """Short digest of instruction and examples."""
        return digest([self.instruction, self.examples])[:12]

    def messages(self, text: str) -> list[Message]:
        """The conversation that asks about a text."""
        turns = [{"role": "system", "content": self.instruction}]
        for given, answer in self.examples:
            turns += [{"role": "user", "content": given}, {"role": "assistant", "content": answer}]
        return [*turns, {"role": "user", "content": text}]


CLEANING = Prompt(
    """You edit radiology reports so that they state only what can be seen in the images of this one examination.

Take out: comparisons with earlier examinations and words of change (new, stable, unchanged, increased since), technique, \
views and positioning, clinical history, indications, recommendations, and notes on who was informed.
If a finding is mentioned only together with a change, state that it is there: "The effusion has increased" becomes "There \
is an effusion". Drop a sentence that states nothing but the absence of a change.
Keep every finding with its side, place, size and degree of certainty, and keep all other words exactly as they are. Add \
nothing. Keep the headings "Findings:" and "Impression:", each on a line of its own, if the report has them.
Answer with the edited report and nothing else.""",
    (
        (
            "Findings: PA and lateral views were obtained. In comparison with the examination of last week, the right pleural "
            "effusion is larger. The heart is of normal size.\nImpression: Growing right pleural effusion.",
            "Findings: There is a right pleural effusion. The heart is of normal size.\nImpression: Right pleural effusion.",
        ),
        (
            "Findings: A 7 mm nodule in the left upper lobe is unchanged. No new nodule. Former smoker.",
            "Findings: A 7 mm nodule in the left upper lobe. No nodule elsewhere.",
        ),
    ),
)

FILTERING = Prompt(
    """You check radiology reports in which phrases are linked to targets, in the form [phrase](target).

Unlink a phrase, so that only its words remain, if the report says that the target is absent, only possible, or could not be \
assessed. Cues are, among others: no, without, free of, resolved, possible, may represent, cannot be excluded, versus, \
limited evaluation, not well seen.
Leave all other links as they are, add none, and change no word and no punctuation mark of the report.
Answer with the report and nothing else.""",
    (
        (
            "No [pneumothorax](pneumothorax). A small [left effusion](pleural effusion), possible [pneumonia](pneumonia).",
            "No pneumothorax. A small [left effusion](pleural effusion), possible pneumonia.",
        ),
        (
            "The [spleen](spleen) is enlarged. The [pancreas](pancreas) is not well seen.",
            "The [spleen](spleen) is enlarged. The pancreas is not well seen.",
        ),
    ),
)

_TAGGING = """You link phrases of radiology reports to targets that could be outlined in the images.

Write the report again and put each phrase that names a target into a link, [phrase](target), with the name of the target from \
the list below. Words in parentheses before a name are optional parts of it.
1. A link includes the words that tell where the target is, of what size and how it looks: [small left pleural \
effusion](pleural effusion).
2. Link nothing that the report says is absent, only possible, or not assessable: "no pneumothorax" and "possible \
consolidation" get no link.
3. Link normal organs too, if the report names them: [liver](liver).
4. Link nothing vague, such as chest, abdomen, left side or free fluid, and nothing that the list does not contain.
5. Change no word and no punctuation mark, and leave nothing out. Links may not be nested.
Answer with the report and nothing else.

Structures: {anatomy}

Findings: {anomalies}"""

_TAGGING_EXAMPLES = (
    (
        "The heart is enlarged. There is a small left pleural effusion without pneumothorax. Opacity at the right base may be "
        "atelectasis.",
        "The [heart is enlarged](cardiomegaly). There is a [small left pleural effusion](pleural effusion) without "
        "pneumothorax. [Opacity at the right base](pulmonary opacification) may be atelectasis.",
    ),
    (
        "Liver and spleen are normal. A simple cyst of 2 cm lies in the left kidney. No renal mass.",
        "[Liver](liver) and [spleen](spleen) are normal. A [simple cyst of 2 cm](cyst) lies in the [left kidney](left "
        "kidney). No renal mass.",
    ),
    (
        "Enhancing mass in the right temporal lobe, most likely a glioma. The brainstem is intact.",
        "[Enhancing mass](tumor) in the [right temporal lobe](right temporal lobe), most likely a glioma. The "
        "[brainstem](brainstem) is intact.",
    ),
)


@cache
def tagging_prompt() -> Prompt:
    """The prompt of the step ``tag``, with the targets of the taxonomy."""
    taxonomy = Taxonomy.load()
    lists = {}
    for category in ("anatomy", "anomaly"):
        names = [target.name for target in taxonomy if target.category == category and target.groundable]
        lists[category] = "; ".join(_shorten(names))
    return Prompt(_TAGGING.format(anatomy=lists["anatomy"], anomalies=lists["anomaly"]), _TAGGING_EXAMPLES)


def _shorten(names: list[str]) -> list[str]:
    """Names with sides and numbers folded: ``(left, right) kidney``, ``(left, right) rib 1 to 12``, ``T1 to T13 vertebra``."""
    folded: dict[str, None] = {}
    known = set(names)
    for name in names:
        side, _, plain = name.partition(" ")
        if side in ("left", "right") and plain in known:
            continue
        sided = f"left {name}" in known and f"right {name}" in known
        if match := re.fullmatch(r"rib \d+", name):
            folded["(left, right) rib 1 to 12"] = None
        elif match := re.fullmatch(r"([CTLS])\d+ vertebra", name):
            last = max(int(n[1:].split()[0]) for n in known if re.fullmatch(rf"{match[1]}\d+ vertebra", n))
            folded[f"{match[1]}1 to {match[1]}{last} vertebra"] = None
        else:
            folded[f"(left, right) {name}" if sided else name] = None
    return list(folded)
