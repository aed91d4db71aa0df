"""Layer 0: configuration and models. Imports torch, transformers and scipy, nothing of the layers above."""
