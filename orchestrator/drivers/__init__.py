"""Drivers decide which jobs exist: the grid, and searches that learn from what jobs came to."""
