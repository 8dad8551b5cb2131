"""Searches run to their end on toy scores."""

import numpy as np


def toy_score(candidate):
    """A score without structure, the same for a candidate at every call; some are equal."""
    digits = [ord(letter) for letter in str(candidate)]
    return round(float(np.random.default_rng(digits).normal()), 1)


def run_search(search, score=toy_score, *, n=None):
    """Ask for up to n candidates at once and tell their scores, until the search is done."""
    while not search.is_done:
        for proposal in search.ask(n):
            search.tell(proposal.order, score(proposal.candidate))
    return search
