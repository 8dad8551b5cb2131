"""Searches run to their end on toy scores, and a toy space."""

import numpy as np

from iac_core.errors import ConfigError
from iac_core.searches.interface import DONE, NoCandidate
from iac_core.searches.space import random_neighbour


class Words:
    """Words of some letters out of a few: a space without repair; a candidate is a tuple."""

    def __init__(self, n_places=8, n_letters=5):
        self.n_places, self.n_letters = n_places, n_letters

    @property
    def variables(self):
        return tuple(map(str, range(self.n_places)))

    def options(self, variable):
        return range(self.n_letters)

    def is_valid(self, candidate):
        return len(candidate) == self.n_places and set(candidate) <= set(range(self.n_letters))

    def canonical(self, candidate):
        if not self.is_valid(candidate):
            raise ConfigError("a word must be of the space", value=repr(candidate))
        return tuple(candidate)

    def sample(self, generator):
        return tuple(generator.integers(self.n_letters, size=self.n_places).tolist())

    def neighbours(self, candidate, variable):
        place = int(variable)
        return [
            (*candidate[:place], letter, *candidate[place + 1 :])
            for letter in range(self.n_letters)
            if letter != candidate[place]
        ]

    def mutate(self, candidate, generator):
        return random_neighbour(self, candidate, generator)


def separable(word):
    """A score of words: a sum over places, 0 at the one optimum."""
    return -sum(abs(letter - (3 * place) % 5) for place, letter in enumerate(word))


def toy_score(candidate):
    """A score without structure, the same for a candidate at every call; some are equal."""
    digits = [ord(letter) for letter in str(candidate)]
    return round(float(np.random.default_rng(digits).normal()), 1)


def run_search(search, score=toy_score, *, n=None):
    """Ask for up to n candidates at once and tell their scores, until the search is done."""
    while not isinstance(asked := search.ask(n), NoCandidate):
        for proposal in asked:
            search.tell(proposal, score(proposal.candidate))
    assert asked is DONE
    return search


def run_in_any_order(search, seed, score=toy_score):
    """Keep several candidates open, and tell them in a random order."""
    generator, waiting = np.random.default_rng(seed), []
    while True:
        asked = search.ask(int(generator.integers(1, 9)))
        if not isinstance(asked, NoCandidate):
            waiting += asked
        elif asked is DONE and not waiting:
            return search
        assert waiting, "an idle search waits for a score"
        proposal = waiting.pop(int(generator.integers(len(waiting))))
        search.tell(proposal, score(proposal.candidate))


def assert_each_once(record, n):
    """Each candidate was asked once for its budget, and all are scored, in order."""
    asked = [(proposal.candidate, proposal.budget) for proposal, _ in record.history]
    assert len(asked) == len(set(asked)) == n
    assert [proposal.order for proposal, _ in record.history] == list(range(n))
