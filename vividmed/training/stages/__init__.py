"""Arguments of a stage in, a trained model with its card out."""
