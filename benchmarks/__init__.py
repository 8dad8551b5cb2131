"""Benchmarks: commands that print ratios, and records of sweeps that were run."""
