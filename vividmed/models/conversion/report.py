"""Accounts for each tensor of a checkpoint of another project."""

from dataclasses import asdict, dataclass, field

from vividmed.errors import VividMedError


@dataclass
class LoadReport:
    """Fate of each tensor of a checkpoint; ``missing`` and ``unexpected`` are errors.

    Attributes:
        copied: loaded as they are.
        converted: renamed, reshaped or extended.
        dropped: not loaded, because nothing of ours computes with them.
        initialized: our tensors that the checkpoint does not have and that keep their own values.
        missing: our tensors that the checkpoint should have.
        unexpected: tensors of the checkpoint that have no counterpart.
    """

    copied: list[str] = field(default_factory=list)
    converted: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    initialized: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)

    def raise_if_incomplete(self, source: str, remedy: str) -> None:
        """Refuse a checkpoint with tensors that have no counterpart.

        Args:
            source: name of the checkpoint, for the message.
            remedy: what to check, for the message.

        Raises:
            VividMedError: tensors are missing or unexpected; the first of them are named.
        """
        for problem, names in (("lacks", self.missing), ("has unknown", self.unexpected)):
            if names:
                shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
                raise VividMedError(f"{source} {problem} {len(names)} tensors ({shown}): {remedy}")

    def to_dict(self) -> dict[str, list[str]]:
        """The names under the words that the commands use: copied, converted, new, ignored, missing, unexpected."""
        names = {"initialized": "new", "dropped": "ignored"}
        return {names.get(fate, fate): sorted(tensors) for fate, tensors in asdict(self).items()}

    def summary(self) -> str:
        """One line with the number of tensors of each fate."""
        counts = {fate: len(tensors) for fate, tensors in self.to_dict().items()}
        return ", ".join(f"{counts[fate]} {fate}" for fate in counts if counts[fate] or fate in _ALWAYS)


_ALWAYS = ("copied", "converted", "new", "ignored")
