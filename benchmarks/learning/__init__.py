"""Does it learn? Each script trains, prints a table and fails below its targets; see docs/learning.md."""
