"""Command line and YAML to dataclasses, with errors of one line."""

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from trl import TrlParser

from vividmed.errors import VividMedError


class StageParser(TrlParser):
    """TRL's parser that refuses what it does not know and names the nearest thing it does.

    Values on the command line win over those of the YAML file, which win over the dataclasses' defaults.
    """

    def __init__(self, dataclass_types: Iterable[Any], **kwargs: Any):
        super().__init__(dataclass_types, allow_abbrev=False, **kwargs)

    def parse(self, arguments: Sequence[str], config: Path | None, **defaults: Any) -> tuple[Any, ...]:
        """Build the dataclasses.

        Args:
            arguments: the command line.
            config: a YAML file of the same names, or None.
            **defaults: values in place of the dataclasses' defaults.

        Raises:
            VividMedError: unreadable file, unknown key or flag, wrong type.
        """
        self.set_defaults_with_config(**defaults)
        if config is not None:
            self._apply(config)
        *parsed, unknown = self.parse_args_into_dataclasses(
            list(arguments), return_remaining_strings=True, look_for_args_file=False
        )
        if unknown:
            raise VividMedError(self._unknown(unknown[0].split("=")[0], "command line"))
        return tuple(parsed[: len(self.dataclass_types)])

    def error(self, message: str) -> NoReturn:
        """Argparse's complaints, without the usage of two hundred flags."""
        raise VividMedError(f"command line: {message} (see --help)")

    def _apply(self, config: Path) -> None:
        try:
            values = yaml.safe_load(config.read_text())
        except OSError as error:
            raise VividMedError(
                f"--config {config}: {error.strerror}; give the path of a YAML file"
            ) from error
        except yaml.YAMLError as error:
            raise VividMedError(
                f"--config {config}: not valid YAML: {' '.join(str(error).split())}"
            ) from error
        if not isinstance(values, dict):
            raise VividMedError(f"--config {config}: must hold 'name: value' lines")
        known = self._names()
        for key in values:
            if key not in known:
                raise VividMedError(self._unknown(str(key), str(config)))
        self.set_defaults_with_config(**values)

    def _names(self) -> list[str]:
        return [action.dest for action in self._actions if action.dest not in ("help", "config")]

    def _unknown(self, name: str, place: str) -> str:
        bare = name.lstrip("-").replace("-", "_")
        nearest = difflib.get_close_matches(bare, self._names(), n=1)
        dashes = "--" if name.startswith("-") else ""
        hint = f"did you mean {dashes}{nearest[0]}?" if nearest else "see --help for all names"
        return f"{place}: unknown argument {name}; {hint}"
