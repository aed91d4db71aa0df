"""Command line and YAML to dataclasses, with errors of one line."""

import argparse
import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

import yaml
from transformers import TrainingArguments
from trl import TrlParser

from vividmed.errors import VividMedError
from vividmed.training.settings.precedence import settle
from vividmed.training.settings.ranges import check_ranges

_WORDS = {"int": "a whole number", "float": "a number", "string_to_bool": "true or false"}
_DICTIONARIES = frozenset(TrainingArguments._VALID_DICT_FIELDS)


class StageParser(TrlParser):
    """TRL's parser, but it refuses names that it does not know and suggests the nearest one.

    Values on the command line win over those of the YAML file, which win over the dataclasses' defaults. A setting of
    the file that contradicts the command line gives way to it, with a warning.
    """

    def __init__(self, dataclass_types: Iterable[Any], **kwargs: Any):
        super().__init__(dataclass_types, allow_abbrev=False, **kwargs)

    def parse(self, arguments: Sequence[str], config: Path | None, **defaults: Any) -> tuple[Any, ...]:
        """Build the dataclasses.

        Args:
            arguments: the command line.
            config: a YAML file of the same names, or None.
            **defaults: values that replace the dataclasses' defaults.

        Raises:
            VividMedError: unreadable file, unknown name, wrong type, a number outside its range, or values that cannot
                be used together.
        """
        self.set_defaults_with_config(**defaults)
        if config is not None:
            values = self._checked(read_yaml(config), str(config))
            self.set_defaults_with_config(**settle(self._given(arguments), values, str(config)))
        try:
            *parsed, unknown = self.parse_args_into_dataclasses(
                list(arguments), return_remaining_strings=True, look_for_args_file=False
            )
        except VividMedError:
            raise
        except Exception as error:
            # The libraries' own checks: of values, of their combinations, of what is installed and supported here.
            raise VividMedError(f"arguments: {' '.join(str(error).split())}") from error
        if unknown:
            raise VividMedError(self._unknown(unknown[0].split("=")[0], "command line"))
        groups = tuple(parsed[: len(self.dataclass_types)])
        for group in groups:
            check_ranges(group)
        return groups

    def error(self, message: str) -> NoReturn:
        """Argparse's complaints, without the usage of two hundred flags."""
        raise VividMedError(f"command line: {message} (see --help)")

    def _given(self, arguments: Sequence[str]) -> dict[str, Any]:
        """The values that stand on the command line itself."""
        parser = type(self)(self.dataclass_types)
        parser.add_argument("--config")
        for action in parser._actions:
            action.default, action.required = argparse.SUPPRESS, False
        return vars(parser.parse_known_args(list(arguments))[0])

    def _checked(self, values: Mapping[str, Any], place: str) -> dict[str, Any]:
        """Values of a file in the types of their arguments."""
        # True flags have a second action with the same name, --no_NAME, which comes later.
        actions = {
            action.dest: action for action in self._actions[::-1] if action.dest not in ("help", "config")
        }
        checked = {}
        for name, value in values.items():
            if name not in actions:
                raise VividMedError(self._unknown(str(name), place))
            checked[name] = self._typed(actions[name], value, place)
        return checked

    def _typed(self, action: argparse.Action, value: Any, place: str) -> Any:
        """A value as the command line would have given it."""
        if value is None or (isinstance(value, dict) and action.dest in _DICTIONARIES):
            return value
        if isinstance(value, list) and action.dest in self._lists():
            return [self._typed_word(action, word, place) for word in value]
        return self._typed_word(action, value, place)

    def _typed_word(self, action: argparse.Action, value: Any, place: str) -> Any:
        wanted = _WORDS.get(getattr(action.type, "__name__", ""), "text")
        wrong = f"{place}: {action.dest} is {value!r} but must be {wanted}"
        if isinstance(value, dict | list) or (isinstance(value, bool) and action.type in (int, float)):
            raise VividMedError(wrong)
        if isinstance(value, bool) and wanted == "text":
            raise VividMedError(
                f"{wrong}; YAML reads an unquoted yes or no as true or false: put it in quotes"
            )
        try:
            word = self._get_value(action, value if isinstance(value, bool) else str(value))
            self._check_value(action, word)
        except argparse.ArgumentError as error:
            if action.choices:
                choices = ", ".join(map(str, action.choices))
                wrong = f"{place}: {action.dest} is {value!r} but must be one of {choices}"
            raise VividMedError(wrong) from error
        return word

    def _lists(self) -> set[str]:
        """Names of the arguments that take several values."""
        return {
            name
            for group in self.dataclass_types
            for name, annotation in get_type_hints(group).items()
            if "list" in str(annotation).lower()
        }

    def _unknown(self, name: str, place: str) -> str:
        known = [action.dest for action in self._actions if action.dest not in ("help", "config")]
        nearest = difflib.get_close_matches(name.lstrip("-").replace("-", "_"), known, n=1)
        dashes = "--" if name.startswith("-") else ""
        hint = f"did you mean {dashes}{nearest[0]}?" if nearest else "see --help for all names"
        return f"{place}: unknown argument {name}; {hint}"


def read_yaml(config: Path) -> dict[str, Any]:
    """The settings of a YAML file.

    Raises:
        VividMedError: the file cannot be read, is not UTF-8 or YAML, or contains something else than settings.
    """
    try:
        values = yaml.safe_load(config.read_text(encoding="utf-8"))
    except OSError as error:
        raise VividMedError(f"--config {config}: {error.strerror}; give the path of a YAML file") from error
    except UnicodeDecodeError as error:
        raise VividMedError(f"--config {config}: not UTF-8 text; save the file as UTF-8") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise VividMedError(f"--config {config}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise VividMedError(f"--config {config}: must contain 'name: value' lines")
    return values
