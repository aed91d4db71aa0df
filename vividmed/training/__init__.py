"""Layer 3: the Trainer, its arguments, adapters, checkpoints and callbacks."""
