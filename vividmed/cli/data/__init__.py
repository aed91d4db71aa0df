"""Verbs that show data."""
