"""Which row comes next: keyed rows, length grouping, mixtures."""
