"""Reports in, grounded reports out."""
