"""Names of labels, as data sets write them, to targets of the taxonomy."""

import re
from collections.abc import Iterable, Mapping

from vividmed.data.taxonomy import Taxonomy
from vividmed.errors import VividMedError

_SIDE = {"left": "left", "right": "right", "l": "left", "r": "right", "lt": "left", "rt": "right"}
_BACKGROUND = frozenset({"background", "bg", "unlabeled", "unlabelled", "clear label", "0"})


class TargetNames:
    """Finds the target that a label means: ``Kidney_L``, ``kidney_left`` and ``left kidney`` are one.

    Args:
        renames: label to target, as the user gives them; an empty target leaves the label out.
    """

    def __init__(self, renames: Mapping[str, str] | None = None) -> None:
        self.renames = {_plain(label): target for label, target in (renames or {}).items()}
        taxonomy = Taxonomy.load()
        self._keys = {_plain(target.ts_v2_key): target.name for target in taxonomy if target.ts_v2_key}
        self._taxonomy = taxonomy

    def find(self, label: str) -> str | None:
        """Target of a label; None if it is background or left out. A label without a target is returned in plain words.

        Unknown targets are reported together, before any work, by the preparation.
        """
        plain = _plain(label)
        if plain in self.renames:
            target = self.renames[plain]
            return self._taxonomy[target].name if target in self._taxonomy else target or None
        if plain in _BACKGROUND:
            return None
        for candidate in (label, plain, *_sided(plain), *_singular(plain)):
            if candidate in self._taxonomy:
                return self._taxonomy[candidate].name
        return self._keys.get(plain, plain)

    def check_used(self, labels: Iterable[str], where: str) -> None:
        """Refuse renames of labels that do not exist.

        Raises:
            VividMedError: naming one of them, and the labels that exist.
        """
        known = {_plain(label): label for label in labels}
        if unknown := sorted(set(self.renames) - set(known)):
            raise VividMedError(
                f"--map {unknown[0]}=...: {where} has no such label; it has {', '.join(map(repr, known.values()))}"
            )


def parse_renames(entries: Iterable[str]) -> dict[str, str]:
    """Read ``label=target`` entries of a command line; ``label=`` leaves a label out.

    Raises:
        VividMedError: an entry has no equals sign, or no label.
    """
    renames: dict[str, str] = {}
    for entry in entries:
        label, sign, target = entry.partition("=")
        if not sign or not label.strip():
            raise VividMedError(f"--map {entry!r}: write label=target, or label= to leave the label out")
        renames[label.strip()] = target.strip()
    return renames


def _plain(label: str) -> str:
    """Lower case, words separated by single spaces."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label)
    return " ".join(re.sub(r"[_\-\s/]+", " ", spaced).lower().split())


def _sided(plain: str) -> list[str]:
    """The label with its side, which may be abbreviated or last, in front."""
    words = plain.split()
    if len(words) < 2:
        return []
    if words[0] in _SIDE:
        return [" ".join([_SIDE[words[0]], *words[1:]])]
    return [" ".join([_SIDE[words[-1]], *words[:-1]])] if words[-1] in _SIDE else []


def _singular(plain: str) -> list[str]:
    return [plain[:-1]] if plain.endswith("s") else []
