"""The ``vividmed`` command: finds the verb and imports only what it needs.

Each verb is a module of this package with ``add_arguments(parser)`` and ``run(args)``; its docstring is the help text.
Verbs of two words are modules of sub-packages: ``vividmed prepare table`` is ``vividmed.cli.prepare.table``.
"""

import argparse
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

from vividmed.cli.parser import CommandParser, did_you_mean
from vividmed.console import BAD_INPUT, run_command
from vividmed.errors import VividMedError
from vividmed.version import __version__


@dataclass(frozen=True)
class Verb:
    """A verb as the overview lists it.

    Attributes:
        summary: what it does, in a few words.
        extra: optional dependencies that it needs, as in ``vividmed[train]``.
    """

    summary: str
    extra: str


VERBS: dict[tuple[str, ...], Verb] = {
    ("train",): Verb("train vlm, vg, grg, finetune, align-sam or align-isam", "train"),
    ("prepare",): Verb("turn an original data set into a Hugging Face data set", "prepare"),
    ("prepare", "table"): Verb("turn a table of images and texts into a data set", "prepare"),
    ("prepare", "imagefolder"): Verb("turn a folder with metadata.csv into a data set", "prepare"),
    ("prepare", "nnunet"): Verb("turn a data set in nnU-Net's layout into a data set", "prepare"),
    ("prepare", "coco"): Verb("turn a COCO file into a data set", "prepare"),
    ("prepare", "bids"): Verb("turn a BIDS data set into a data set", "prepare"),
    ("ground-reports",): Verb("make grounded reports from images and plain reports", "grounded-reports"),
    ("build",): Verb("build a base model from CogVLM or any Llama", "data"),
    ("convert",): Verb("convert a published adapter, or merge it", "data"),
    ("check",): Verb("check a run, and estimate the memory it needs", "train"),
    ("merge",): Verb("merge an adapter into its base model", "train"),
    ("push",): Verb("publish a prepared data set or a trained model on the Hub", "data"),
    ("predict",): Verb("report on scans, answer questions, find what is named", "inference"),
    ("app",): Verb("open a page with a viewer and a conversation", "app"),
    ("serve",): Verb("serve a model over HTTP, with OpenAI's protocol", "serve"),
    ("evaluate", "predict"): Verb("ask a model about the rows of a data set", "evaluation"),
    ("evaluate", "score"): Verb("score predictions, with intervals by patient", "evaluation"),
    ("data", "preview"): Verb("draw rows of a prepared data set and count what they contain", "prepare"),
    ("data", "sample"): Verb("print and draw the conversations that a mixture trains on", "prepare"),
}
_GROUPS = {
    (): "Train, fine-tune and run VividMed.",
    ("evaluate",): "Measure a model in two steps: predictions, then figures.",
    ("data",): "Look at prepared data sets and at what a mixture trains on.",
}
_SHELLS = ("bash", "zsh", "tcsh")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb.

    Args:
        arguments: verb and its arguments; those of the process by default.

    Returns:
        Exit status: 0 for success, 1 for a result with failures, 2 for input that the user can correct.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Its warnings quote values of headers, such as names and dates.
    warnings.filterwarnings("ignore", module=r"pydicom\.")
    return run_command(lambda: _run(given))


def _run(arguments: list[str]) -> int | None:
    words, rest = _resolve(arguments)
    if words not in VERBS:
        parser = _overview(words)
        options = parser.parse_args(rest)
        if getattr(options, "print_completion", None):
            print(_completion(options.print_completion))
            return None
        parser.print_help()
        return BAD_INPUT
    try:
        module = _module(words)
        if hasattr(module, "run_arguments"):
            return module.run_arguments(rest)
        return module.run(_verb_parser(words, module).parse_args(rest))
    except ModuleNotFoundError as error:
        if (error.name or "vividmed").partition(".")[0] == "vividmed":
            raise
        raise VividMedError(
            f"vividmed {' '.join(words)}: the package {error.name} is not installed; "
            f'run: pip install "vividmed[{VERBS[words].extra}]"'
        ) from error


def _resolve(arguments: list[str], group: tuple[str, ...] = ()) -> tuple[tuple[str, ...], list[str]]:
    """Split a command line into the words of a verb, or of a group of verbs, and the rest."""
    if not arguments or arguments[0].startswith("-"):
        return group, arguments
    words = (*group, arguments[0])
    if words in VERBS:
        longer = (*words, *arguments[1:2])
        return (longer, arguments[2:]) if longer in VERBS else (words, arguments[1:])
    if any(verb[: len(words)] == words for verb in VERBS):
        return _resolve(arguments[1:], words)
    here = {verb[len(group)]: verb[: len(group) + 1] for verb in VERBS if verb[: len(group)] == group}
    # A verb is also found by its last word, from another group.
    known = {verb[-1]: verb for verb in VERBS} | here
    nearest = did_you_mean(arguments[0], known)
    for word, verb in known.items():
        nearest = nearest.replace(f" {word}?", f" vividmed {' '.join(verb)}?")
    raise VividMedError(
        f"{' '.join(('vividmed', *group))}: unknown verb {arguments[0]!r}"
        f"{nearest or '; choose one of ' + ', '.join(here)}"
    )


def _module(words: tuple[str, ...]) -> ModuleType:
    return import_module(".".join(("vividmed.cli", *words)).replace("-", "_"))


def _verb_parser(words: tuple[str, ...], module: ModuleType) -> CommandParser:
    parser = CommandParser(f"vividmed {' '.join(words)}", module.__doc__)
    module.add_arguments(parser)
    return parser


def _overview(group: tuple[str, ...]) -> CommandParser:
    """Parser of what stands before a verb; its help lists the verbs."""
    # Verbs below a verb, such as `prepare table`, are listed by its own help.
    shown = (words for words in VERBS if words[: len(group)] == group and words[:-1] not in VERBS)
    verbs = {" ".join(words): VERBS[words] for words in shown}
    width = max(map(len, verbs))
    lines = [f"  {name:<{width}}  {verb.summary}" for name, verb in verbs.items()]
    prog = " ".join(("vividmed", *group))
    options = "--help, --version, --print-completion SHELL" if not group else "--help"
    parser = CommandParser(
        prog,
        "\n".join([_GROUPS[group], "", *lines]),
        usage=f"{prog} VERB [ARGUMENTS]",
        epilog=f"`vividmed VERB --help` describes a verb.\nOptions: {options}",
        add_help=False,
    )
    # Without help texts of their own, so that the list of verbs fits one screen.
    parser.add_argument("-h", "--help", action="help", help=argparse.SUPPRESS)
    if not group:
        parser.add_argument("--version", action="version", version=__version__, help=argparse.SUPPRESS)
        parser.add_argument("--print-completion", choices=_SHELLS, help=argparse.SUPPRESS)
    return parser


def _completion(shell: str) -> str:
    """Script that teaches a shell to complete verbs and arguments."""
    import shtab

    parser = CommandParser("vividmed", add_help=True)
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--print-completion", choices=_SHELLS)
    groups: dict[tuple[str, ...], Any] = {(): parser.add_subparsers()}
    for group, text in _GROUPS.items():
        if group:
            child = groups[group[:-1]].add_parser(group[-1], prog=" ".join(group), help=text)
            groups[group] = child.add_subparsers()
    for words, verb in VERBS.items():
        if words[:-1] not in groups:
            continue  # below a verb with arguments of its own
        child = groups[words[:-1]].add_parser(
            words[-1], prog=" ".join(words), help=verb.summary, conflict_handler="resolve"
        )
        _module(words).add_arguments(child)
    return shtab.complete(parser, shell)


if __name__ == "__main__":
    sys.exit(main())
