"""Layer 4: the ``vividmed`` command."""
