"""Command line and YAML in, checked groups of arguments out."""
