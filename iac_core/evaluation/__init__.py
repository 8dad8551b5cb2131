"""Evaluation: scores of whole volumes on their original grid, and the cost of a network."""
