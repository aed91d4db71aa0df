"""Decides which row comes next: rows by key, length grouping, mixtures and their streams."""
