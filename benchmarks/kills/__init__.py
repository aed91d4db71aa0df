"""Kills programs at random moments and compares what they leave with an unbroken run."""
