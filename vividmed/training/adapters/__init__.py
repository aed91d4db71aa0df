"""Adapters of PEFT: which modules they train, how they start, load and merge."""
