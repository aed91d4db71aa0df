"""Print and draw what the model would be trained on.

    vividmed data sample --config stages/configs/vlm.yaml --root prepared -n 20

Prints the conversations of the first training samples and what their phrases are grounded in, and draws their images
on one sheet.
"""

import argparse
from pathlib import Path

from shtab import FILE

from vividmed.cli.parser import add_on_bad_sample, positive_int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``vividmed data sample``."""
    config = parser.add_argument(
        "--config", type=Path, required=True, help="YAML file of a mixture or of a stage"
    )
    config.complete = FILE  # type: ignore[attr-defined]
    parser.add_argument(
        "--root", metavar="PLACE", help="folder or Hub organisation that contains the prepared data sets"
    )
    parser.add_argument("-n", type=positive_int, default=20, help="number of samples (default: 20)")
    output = parser.add_argument(
        "--output", type=Path, default=Path("samples.png"), help="PNG file to write (default: samples.png)"
    )
    output.complete = FILE  # type: ignore[attr-defined]
    add_on_bad_sample(parser)


def run(args: argparse.Namespace) -> None:
    """Print the samples and draw their contact sheet."""
    from vividmed.cli.data.contact_sheet import Tile, draw_contact_sheet
    from vividmed.data.sampling.mixture import sample_conversations

    tiles = []
    samples = sample_conversations(args.config, args.n, root=args.root, on_bad_sample=args.on_bad_sample)
    for number, sample in enumerate(samples, start=1):
        print(f"--- {number}: {sample.row['id']} ({sample.row['modality']})")
        for message in sample.conversation.messages:
            print(f"{message['role']}: {message['content']}")
        for phrase in sample.conversation.phrases:
            targets = ", ".join(phrase.targets) or "nothing"
            print(f"  <p>{phrase.text}</p> -> {phrase.label_type or 'no label'}, {targets}")
        shown = {target for phrase in sample.conversation.phrases for target in phrase.targets}
        tiles.append(Tile(sample.row, f"{number}: {sample.row['id']}", shown))
    drawn = draw_contact_sheet(tiles, args.output, on_bad_sample=args.on_bad_sample)
    print(f"{args.output}: {drawn} samples")
