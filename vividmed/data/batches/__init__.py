"""Rows in, batches of tensors out."""
