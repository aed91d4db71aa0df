"""Does it learn? Each script trains, prints a table, and fails if a figure is below its target; see docs/learning.md."""
