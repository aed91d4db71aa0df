"""Whole ways that a user goes, from files to a number, on the smallest material."""
