"""One's own data: tables and common folder layouts become cases, which the preparation engine turns into rows."""
