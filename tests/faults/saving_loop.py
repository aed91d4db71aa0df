"""A program that does nothing but save checkpoints, to be killed at any moment by a test."""

import sys
from pathlib import Path

from vividmed.training.checkpointing import atomic_checkpoint, remove_old_checkpoints

folder = Path(sys.argv[1])
for step in range(1, 10_000):
    with atomic_checkpoint(folder, step, is_writer=True, barrier=lambda: None) as partial:
        for part in range(4):
            (partial / f"part-{part}").write_bytes(f"{step} {part} ".encode() * 40_000)
    remove_old_checkpoints(folder, keep=2, best=None)
