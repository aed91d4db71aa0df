"""Models made from others' weights: built from parts, or converted from published adapters, as folders of their own."""
