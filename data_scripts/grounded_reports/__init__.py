"""Twins of ``vividmed ground-reports``, for a clone without an installation."""
