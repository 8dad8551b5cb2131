"""Cells: the searched DAG, its discrete form, and how they sit in a backbone's skips."""
