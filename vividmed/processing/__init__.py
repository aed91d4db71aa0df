"""Layer 1: files, images, geometry, tokens and conversations, turned into what the model takes."""
