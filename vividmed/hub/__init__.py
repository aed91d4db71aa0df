"""Layer 3: folders in, cards and repositories on the Hub out."""
