"""Metrics that need weights or a language model: given as local paths or endpoints, never downloaded."""
