"""Localization rows to the batches of a segmenter that is trained alone."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from vividmed.data.alignment_examples import AlignmentReader
from vividmed.data.collator import BatchSize
from vividmed.errors import VividMedError


class AlignmentCollator:
    """Joins alignment examples.

    Args:
        read: turns a row into an example.
    """

    def __init__(self, read: AlignmentReader):
        self.read = read

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Prepare and join rows.

        Returns:
            ``images``: list of (3, D, H, W); ``patch_sizes`` (N, 3); ``targets``: names asked for, for each image;
            ``grounding_labels``: for each image; ``target_names``: as ``targets``, of those with a mask. Besides
            ``sample_ids``, ``num_samples`` and ``size``.

        Raises:
            VividMedError: for a row that cannot be prepared, naming it.
        """
        examples = []
        for row in rows:
            try:
                example = self.read(row)
            except VividMedError as error:
                raise VividMedError(f"row {row.get('id', '?')}: {error}") from error
            if row.get("repeated"):
                example = {**example, "targets": [], "labels": {}}
            examples.append(example)
        patch_sizes = torch.tensor([example["patch_size"] for example in examples])
        patches = sum(
            math.prod(example["values"].shape[1:]) // math.prod(example["patch_size"]) for example in examples
        )
        targets = [example["targets"] for example in examples]
        return {
            "images": [example["values"] for example in examples],
            "patch_sizes": patch_sizes,
            "targets": targets,
            "grounding_labels": [example["labels"] for example in examples],
            "target_names": targets,
            "sample_ids": [str(row.get("id", "?")) for row in rows],
            "num_samples": sum(not row.get("repeated") for row in rows),
            "size": BatchSize(
                samples=len(rows),
                tokens=patches,
                supervised_tokens=sum(map(len, targets)),
                patches=patches,
            ),
        }
