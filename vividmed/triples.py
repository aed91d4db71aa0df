"""The one name for three whole numbers per axis: sizes, patch sizes, corners, factors."""

Triple = tuple[int, int, int]
"""Whole numbers in (z, y, x) order, unless a docstring gives another."""
