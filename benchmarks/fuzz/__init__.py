"""Broken input of every kind, to show that all of it ends in one line: ``python -m benchmarks.fuzz``."""
