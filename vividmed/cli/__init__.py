"""Layer 4: the ``vividmed`` command, one module per verb."""
