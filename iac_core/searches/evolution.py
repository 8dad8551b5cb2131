"""Regularised evolution over any search space, as ask and tell."""

import math
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from iac_core.config import require, require_at_least
from iac_core.searches.space import SearchSpace
from iac_core.seeding import numpy_generator

C = TypeVar("C")
_MOST_DRAWS = 200
"""Draws for a candidate that is new; after so many that are known the space counts as seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal(Generic[C]):
    """A candidate to be scored.

    Attributes:
        order: Its number, from 0.
        candidate: The candidate.
        parent: Number of the candidate that it is a mutation of; None if it was drawn.
    """

    order: int
    candidate: C
    parent: int | None = None


class RegularisedEvolution(Generic[C]):
    """Regularised (ageing) evolution, Real et al. 2019, algorithm 1.

    The population is the latest `population` candidates: every new one enters, the oldest dies.
    The first `population` are drawn; each later one is a mutation of the best of `tournament`
    members. No candidate is proposed twice: a mutation that is known is mutated on, and a space
    that gives nothing new ends the search.

    Candidate i is decided from the scores of the candidates up to i − lag alone, so that up to
    `lag` are open at once and the result does not depend on which of them is scored first.

    Args:
        space: What is searched.
        population: Members.
        tournament: Members that a parent is the best of.
        n_evaluations: Candidates in all.
        seed: The job's seed.
        lag: 1 decides each from all before it.
    """

    def __init__(
        self,
        space: SearchSpace[C],
        *,
        population: int,
        tournament: int,
        n_evaluations: int,
        seed: int,
        lag: int = 1,
    ) -> None:
        require_at_least(1, population=population, tournament=tournament, lag=lag)
        require_at_least(1, n_evaluations=n_evaluations)
        self.space, self.seed = space, seed
        self.population, self.tournament = population, tournament
        self.n_evaluations, self.lag = n_evaluations, lag
        self.proposals: list[Proposal[C]] = []
        self._scores: dict[int, float] = {}
        self._known: set[C] = set()
        self._is_exhausted = False

    def ask(self, n: int = 1) -> list[Proposal[C]]:
        """Return up to n new candidates.

        Fewer, or none, are returned while scores that the next one depends on are missing, and
        when the search `is_done`.
        """
        found: list[Proposal[C]] = []
        while len(found) < n and self._can_decide():
            proposal = self._decide()
            if proposal is None:
                self._is_exhausted = True
                break
            self.proposals.append(proposal)
            self._known.add(proposal.candidate)
            found.append(proposal)
        return found

    def tell(self, order: int, score: float) -> None:
        """Take up the score of a candidate; higher is better, NaN is worse than any number.

        Raises:
            ConfigError: If no such candidate is open.
        """
        is_open = 0 <= order < len(self.proposals) and order not in self._scores
        require(is_open, "a score must be that of a candidate that waits for one", order)
        self._scores[order] = -math.inf if math.isnan(score) else float(score)

    @property
    def is_done(self) -> bool:
        """Whether there is nothing more to ask: the budget is used, or the space is seen."""
        return self._is_exhausted or len(self.proposals) >= self.n_evaluations

    @property
    def history(self) -> list[tuple[Proposal[C], float]]:
        """Every scored candidate with its score, in order."""
        return [(self.proposals[order], self._scores[order]) for order in sorted(self._scores)]

    def best(self) -> Proposal[C]:
        """Return the candidate of the best score, the first of equal ones.

        Raises:
            ConfigError: If none is scored.
        """
        require(bool(self._scores), "a best candidate needs a scored one", len(self._scores))
        return self.proposals[min(self._scores, key=self._rank)]

    def _rank(self, order: int) -> tuple[float, int]:
        return -self._scores[order], order

    def _can_decide(self) -> bool:
        if self.is_done:
            return False
        return all(order in self._scores for order in self._members(len(self.proposals)))

    def _members(self, order: int) -> range:
        """The population that a candidate is decided from; empty for those that are drawn."""
        stop = order - self.lag + 1
        if order < self.population or stop < 1:
            return range(0)
        return range(max(0, stop - self.population), stop)

    def _decide(self) -> Proposal[C] | None:
        order = len(self.proposals)
        generator = numpy_generator(self.seed, "evolution", order)
        members = self._members(order)
        if not members:
            return self._drawn(order, generator)
        n = min(self.tournament, len(members))
        chosen = generator.choice(np.array(members), size=n, replace=False)
        parent = min((int(member) for member in chosen), key=self._rank)
        child = self.proposals[parent].candidate
        for _ in range(_MOST_DRAWS):
            child = self.space.mutate(child, generator)
            if child not in self._known:
                return Proposal(order=order, candidate=child, parent=parent)
        return self._drawn(order, generator)

    def _drawn(self, order: int, generator: np.random.Generator) -> Proposal[C] | None:
        for _ in range(_MOST_DRAWS):
            candidate = self.space.sample(generator)
            if candidate not in self._known:
                return Proposal(order=order, candidate=candidate)
        return None
