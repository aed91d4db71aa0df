"""Predictions and references in, figures with their intervals out; each metric is an ``evaluate.Metric``."""
