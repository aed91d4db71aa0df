"""How a model is asked: prompts, decoding and post-processing, written down so that figures compare."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

import yaml

from vividmed.errors import VividMedError


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Settings of an evaluation.

    Attributes:
        name: file name without its ending.
        description: one sentence.
        report_prompt: question that a report answers.
        max_new_tokens: longest answer.
        keep_markers: leave phrase markers and surrounding spaces in the answer.
        drop_last_image: leave out the items of the last image by name, as the published sets did.
    """

    name: str
    description: str
    report_prompt: str
    max_new_tokens: int
    keep_markers: bool
    drop_last_image: bool

    @classmethod
    def load(cls, name: str | Path) -> Self:
        """Read a protocol of the package by name (``default``, ``published``) or a YAML file.

        Raises:
            VividMedError: there is none of that name, or a field is missing, unknown or of the wrong type.
        """
        folder = files("vividmed.metrics") / "protocols"
        known = sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir())
        source: Any = folder / f"{name}.yaml" if str(name) in known else Path(name)
        try:
            content = yaml.safe_load(source.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise VividMedError(
                f"--protocol {name}: cannot be read ({' '.join(str(error).split())[:200]}); "
                f"use {', '.join(known)} or a YAML file"
            ) from error
        return cls(name=Path(str(name)).stem, **_checked(content, str(name)))


def _checked(content: Any, name: str) -> dict[str, Any]:
    wanted = {
        "description": str,
        "report_prompt": str,
        "max_new_tokens": int,
        "keep_markers": bool,
        "drop_last_image": bool,
    }
    if not isinstance(content, dict) or set(content) != set(wanted):
        raise VividMedError(f"--protocol {name}: needs exactly the fields {', '.join(wanted)}")
    for field, type_ in wanted.items():
        if type(content[field]) is not type_:
            raise VividMedError(
                f"--protocol {name}: {field} is {content[field]!r}; give a value of type {type_.__name__}"
            )
    return content
