"""The folder of a run, and how a run survives being stopped."""
