"""Boxes around the separate parts of masks, for findings that reports count, such as nodules."""

from collections.abc import Collection, Iterable
from typing import Any

from vividmed.data.pseudo_labels.localizers import Found, Localizer, Request
from vividmed.data.raw.instances import split_instances


class InstanceBoxes(Localizer):
    """Finds what another localizer finds, and turns masks of some targets into one box per connected component.

    Args:
        localizer: finds the masks.
        targets: canonical names of the targets that get boxes; the others keep their masks.
    """

    def __init__(self, localizer: Localizer, targets: Collection[str]) -> None:
        self.localizer = localizer
        self.targets = frozenset(targets)
        self.name = localizer.name

    @property
    def settings(self) -> dict[str, Any]:
        return {**self.localizer.settings, "instances": sorted(self.targets)}

    def fingerprint(self, request: Request) -> str:
        return self.localizer.fingerprint(request)

    def locate(self, request: Request) -> Iterable[Found]:
        for found in self.localizer.locate(request):
            if found.patch is None or found.target not in self.targets:
                yield found
                continue
            for part in split_instances(found.patch):
                yield Found(found.target, box=part.box, score=found.score)
