"""Weights of other projects in, ours out, every tensor accounted for."""
