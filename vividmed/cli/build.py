"""Build a base model from the weights of others, one tensor at a time, with processor, card and report.

    vividmed build --cogvlm DIR --tokenizer DIR [--segvol FILE] --output FOLDER
    vividmed build --llm DIR [--vision DIR] [--segvol FILE] --output FOLDER

The language model is CogVLM's, or any of the types llama, mistral, qwen2 and qwen3; its vision experts start as copies
of its layers. A DIR may be a repository on the Hub. Safe to interrupt: run the command again to resume.
See docs/weights.md.
"""

import argparse
from functools import partial
from pathlib import Path

from shtab import DIRECTORY

from vividmed.cli.parser import positive_int, random_seed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``vividmed build``."""
    base = parser.add_mutually_exclusive_group(required=True)
    places = [
        base.add_argument("--cogvlm", metavar="PLACE", help="CogVLM checkpoint (safetensors or .bin)"),
        base.add_argument("--llm", metavar="PLACE", help="language model"),
        parser.add_argument(
            "--vision",
            default="scratch",
            metavar="PLACE",
            help="with --llm: CogVLM or VividMed model whose vision tower to take (default: scratch, a new one)",
        ),
        parser.add_argument(
            "--tokenizer",
            metavar="PLACE",
            help="its tokenizer; needed with --cogvlm, by default that of --llm",
        ),
        parser.add_argument("--segvol", metavar="PLACE", help="weights of SegVol for both segmenters"),
    ]
    places.append(add_output(parser))
    for place in places:
        place.complete = DIRECTORY  # type: ignore[attr-defined]
    parser.add_argument(
        "--preset",
        choices=("17b", "3b", "1b", "tiny"),
        help="size of a new vision tower (default: one that suits the language model)",
    )
    for name, what in (
        ("patch-size", "patches (default: 16 16 16, or those of the vision tower)"),
        ("position-grid", "position embeddings (default: 8 32 32, or those of the vision tower)"),
    ):
        add_triple(parser, f"--{name}", what)
    add_triple(parser, "--segvol-patch-size", "SegVol's patches (default: 4 16 16)", default=(4, 16, 16))
    add_triple(
        parser,
        "--segvol-position-grid",
        "SegVol's position embeddings (default: 8 16 16)",
        default=(8, 16, 16),
    )
    parser.add_argument(
        "--segvol-heads",
        type=positive_int,
        metavar="N",
        help="SegVol's attention heads (default: of 64 channels each)",
    )
    add_making(parser)
    parser.add_argument("--seed", type=random_seed, default=0, help="random seed of new weights (default: 0)")


def add_output(parser: argparse.ArgumentParser) -> argparse.Action:
    """Add ``--output`` and ``--push-to-hub``."""
    output = parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="folder to write, empty or new"
    )
    parser.add_argument(
        "--push-to-hub",
        metavar="namespace/name",
        help="publish the result, privately; --output is then optional",
    )
    return output


def add_making(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that all verbs that make weights share."""
    parser.add_argument(
        "--dtype",
        default="auto",
        choices=("auto", "float32", "bfloat16", "float16"),
        help="precision, segmenters excepted, which are float32 (default: that of the language model)",
    )
    parser.add_argument(
        "--licence",
        metavar="NAME",
        help="licence of the result, such as Apache-2.0; without one it is private",
    )
    parser.add_argument(
        "--allow-partial",
        action="store_true",
        help="make missing tensors new and ignore unknown ones instead of refusing",
    )


def add_triple(
    parser: argparse.ArgumentParser, name: str, what: str, default: tuple[int, int, int] | None = None
) -> None:
    """Add an argument of three sizes."""
    parser.add_argument(name, type=positive_int, nargs=3, metavar=("Z", "Y", "X"), default=default, help=what)


def run(args: argparse.Namespace) -> None:
    """Build, report, and publish if asked."""
    from vividmed.weights.build import BuildOptions, build_model
    from vividmed.weights.publishing import into_output

    options = BuildOptions(
        cogvlm=args.cogvlm,
        llm=args.llm,
        vision=args.vision,
        tokenizer=args.tokenizer,
        segvol=args.segvol,
        segvol_patch_size=tuple(args.segvol_patch_size),
        segvol_position_grid=tuple(args.segvol_position_grid),
        segvol_heads=args.segvol_heads,
        preset=args.preset,
        patch_size=None if args.patch_size is None else tuple(args.patch_size),
        position_grid=None if args.position_grid is None else tuple(args.position_grid),
        dtype=args.dtype,
        licence=args.licence,
        seed=args.seed,
        allow_partial=args.allow_partial,
    )
    into_output(args.output, args.push_to_hub, partial(build_model, options), say=print)
