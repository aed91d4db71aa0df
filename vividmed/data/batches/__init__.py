"""Turns rows into batches of tensors."""
