"""Layer 2: rows of data sets, their schema and sources, and the batches made of them."""
