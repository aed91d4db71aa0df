"""Layer 1: turns files, images and conversations into what the model takes, and results back into image space."""
