"""Compiled loops for a CPU; arrays in, arrays out, no knowledge of cells or training."""
