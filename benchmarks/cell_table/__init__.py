"""Tables of cells on one backbone and one fold, against which any search is judged.

Run ``python -m benchmarks.cell_table TABLES [TABLES …] [--found TABLES …] [--subset test]``.
"""
