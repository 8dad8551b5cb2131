"""Searches over a space of candidates: pure ask/tell code without networks, files or processes.

A search is deterministic in its seed and in the answers it was told, in a fixed order. So a killed
search resumes by being asked again and told the recorded answers.
"""
