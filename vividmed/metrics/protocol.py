"""How a model is asked: prompts, decoding and post-processing, written down so that figures compare."""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Self, get_args

import yaml

from vividmed.errors import VividMedError

Unit = Literal["study", "image"]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Settings of an evaluation.

    Attributes:
        name: file name without its ending.
        description: one sentence.
        report_prompt: question that a report answers.
        question: form of a question about an image; ``{question}`` stands for the question itself.
        max_new_tokens: longest answer.
        num_beams: beams of the search; 1 is greedy.
        temperature: of sampling; 0 does not sample.
        unit: what a report is about: ``study`` shows all images of a row together; ``image`` asks for a report of each
            image, all with the reference of the study.
        max_image_tokens: largest number of visual tokens per image; 0 for that of the model.
        max_slice_tokens: largest number of visual tokens along depth; 0 for that of the model.
        keep_markers: leave phrase markers and surrounding spaces in the answer.
        drop_last_image: task ``vqa`` leaves out the items of the last image by name, as the published sets did.
        quirks: what is unusual about the settings, by name, in a sentence each.
    """

    name: str
    description: str
    report_prompt: str
    question: str = "{question}"
    max_new_tokens: int = 512
    num_beams: int = 1
    temperature: float = 0.0
    unit: Unit = "study"
    max_image_tokens: int = 0
    max_slice_tokens: int = 0
    keep_markers: bool = False
    drop_last_image: bool = False
    quirks: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, name: str | Path) -> Self:
        """Read a protocol of the package by name (see :func:`protocol_names`) or a YAML file.

        Raises:
            VividMedError: there is none of that name, or a field is missing, unknown or has a wrong value.
        """
        known = protocol_names()
        source: Any = _FOLDER / f"{name}.yaml" if str(name) in known else Path(name)
        try:
            content = yaml.safe_load(source.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise VividMedError(
                f"--protocol {name}: cannot be read ({' '.join(str(error).split())[:200]}); "
                f"use {', '.join(known)} or a YAML file"
            ) from error
        return cls(name=Path(str(name)).stem, **_checked(content, str(name)))

    def ask(self, question: str) -> str:
        """The prompt for a question."""
        return self.question.replace("{question}", question)

    @property
    def decoding(self) -> dict[str, Any]:
        """Options of ``generate``."""
        options: dict[str, Any] = {"max_new_tokens": self.max_new_tokens, "do_sample": self.temperature > 0}
        if self.temperature > 0:
            options["temperature"] = self.temperature
        if self.num_beams > 1:
            options["num_beams"] = self.num_beams
        return options

    @property
    def images(self) -> dict[str, int]:
        """Settings of the image processor that differ from the model's own."""
        given = {"max_image_tokens": self.max_image_tokens, "max_slice_tokens": self.max_slice_tokens}
        return {name: value for name, value in given.items() if value}

    def record(self) -> dict[str, Any]:
        """All fields, as JSON stores them."""
        return asdict(self)


_FOLDER = files("vividmed.metrics") / "protocols"


def protocol_names() -> list[str]:
    """Names of the package's protocols."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _FOLDER.iterdir())


def _checked(content: Any, name: str) -> dict[str, Any]:
    known = {each.name: each for each in fields(Protocol) if each.name != "name"}
    needed = [
        each.name for each in known.values() if each.default is MISSING and each.default_factory is MISSING
    ]
    if not isinstance(content, dict):
        raise VividMedError(
            f"--protocol {name}: must contain 'name: value' lines, with {' and '.join(needed)}"
        )
    for key in needed:
        if key not in content:
            raise VividMedError(f"--protocol {name}: {key} is missing; it needs {' and '.join(needed)}")
    types: dict[str, tuple[type, ...]] = {"quirks": (dict,), "temperature": (int, float)}
    for key, value in content.items():
        if key not in known:
            raise VividMedError(f"--protocol {name}: unknown field {key}; use {', '.join(known)}")
        default = known[key].default
        wanted = types.get(key, (str,) if default is MISSING else (type(default),))
        if type(value) not in wanted:
            raise VividMedError(
                f"--protocol {name}: {key} is {value!r}; give a value of type {wanted[-1].__name__}"
            )
        if type(value) in (int, float) and value < 0:
            raise VividMedError(f"--protocol {name}: {key} is {value!r}; give 0 or more")
    if content.get("unit", "study") not in get_args(Unit):
        raise VividMedError(
            f"--protocol {name}: unit is {content['unit']!r}; use one of {', '.join(get_args(Unit))}"
        )
    if "{question}" not in content.get("question", "{question}"):
        raise VividMedError(f"--protocol {name}: question has no {{question}} in it; write it where it goes")
    if content.get("max_new_tokens", 1) < 1 or content.get("num_beams", 1) < 1:
        raise VividMedError(f"--protocol {name}: max_new_tokens and num_beams must be at least 1")
    return content
