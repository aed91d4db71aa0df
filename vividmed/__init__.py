"""Public names, imported when first used."""
