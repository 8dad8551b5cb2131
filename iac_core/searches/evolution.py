"""Regularised evolution over any search space, as ask and tell."""

from typing import Generic, TypeVar

import numpy as np

from iac_core.config import require, require_at_least
from iac_core.searches.interface import DONE, IDLE, Ask
from iac_core.searches.record import Proposal, Record
from iac_core.searches.space import SearchSpace, sample_new
from iac_core.seeding import numpy_generator

C = TypeVar("C")
_MOST_DRAWS = 200
"""Draws for a candidate that is new; after so many that are known the space counts as seen."""


class RegularisedEvolution(Generic[C]):
    """Regularised (ageing) evolution, Real et al. 2019, algorithm 1.

    The population is the latest `population` candidates: every new one enters, the oldest dies.
    The first `population` are drawn; each later one is a mutation of the best of `tournament`
    members. No candidate is proposed twice: a mutation that is known is mutated on, and a space
    that gives nothing new ends the search.

    Candidate i is decided from the scores of the candidates up to i − lag alone, so that up to
    `lag` are open at once and the result does not depend on which of them is scored first.

    Args:
        space: The space.
        population: Members.
        tournament: Members that a parent is the best of.
        n_evaluations: Candidates in all.
        seed: The job's seed.
        lag: 1 decides each from all before it.
        record: Of an earlier search, whose candidates are not proposed again and are no members.

    Raises:
        ConfigError: If a number is out of its range, or the record waits for a score.
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
        record: Record[C] | None = None,
    ) -> None:
        require_at_least(1, population=population, tournament=tournament, lag=lag)
        require_at_least(1, n_evaluations=n_evaluations)
        self.space, self.seed = space, seed
        self.population, self.tournament = population, tournament
        self.n_evaluations, self.lag = n_evaluations, lag
        self._record = Record[C]() if record is None else record
        is_open = self._record.has_open
        require(not is_open, "an earlier search must have all its scores", is_open)
        self._first = len(self._record.proposals)
        self._is_exhausted = False

    @property
    def record(self) -> Record[C]:
        """Proposals and scores."""
        return self._record

    def ask(self, n: int | None = None) -> Ask[C]:
        """Return 1 to n new candidates, None for all that can be decided now; `IDLE` or `DONE`.

        Fewer than n are returned where the next one depends on a score that is missing.
        """
        require_at_least(1, n=n)
        found: list[Proposal[C]] = []
        while (n is None or len(found) < n) and self._can_decide():
            proposal = self._decide()
            if proposal is None:
                self._is_exhausted = True
                break
            found.append(proposal)
        return found or (DONE if self._is_done else IDLE)

    def tell(self, proposal: Proposal[C], score: float) -> None:
        """Take up the score of an open candidate, see `Search.tell`."""
        self._record.tell(proposal, score)

    @property
    def _is_done(self) -> bool:
        """Whether the budget is used, or the space is seen."""
        return self._is_exhausted or self._n_proposed >= self.n_evaluations

    @property
    def _n_proposed(self) -> int:
        return len(self._record.proposals) - self._first

    def _can_decide(self) -> bool:
        if self._is_done:
            return False
        return all(self._record.is_scored(order) for order in self._members())

    def _members(self) -> range:
        """The population that the next candidate is decided from; empty if it is drawn."""
        stop = self._n_proposed - self.lag + 1
        if self._n_proposed < self.population or stop < 1:
            return range(0)
        return range(self._first + max(0, stop - self.population), self._first + stop)

    def _decide(self) -> Proposal[C] | None:
        generator = numpy_generator(self.seed, "evolution", self._n_proposed)
        members = self._members()
        if not members:
            return self._drawn(generator)
        n = min(self.tournament, len(members))
        chosen = generator.choice(np.array(members), size=n, replace=False)
        parent = min((int(member) for member in chosen), key=self._record.rank)
        child = self._record.proposals[parent].candidate
        for _ in range(_MOST_DRAWS):
            child = self.space.mutate(child, generator)
            if not self._record.knows(child):
                return self._record.add(child, parent=parent)
        return self._drawn(generator)

    def _drawn(self, generator: np.random.Generator) -> Proposal[C] | None:
        candidate = sample_new(self.space, self._record.knows, generator, n_draws=_MOST_DRAWS)
        return None if candidate is None else self._record.add(candidate)
