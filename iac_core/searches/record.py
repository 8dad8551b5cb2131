"""What a search remembers: its candidates and their scores."""

import math
from dataclasses import dataclass
from typing import Generic, TypeVar

from iac_core.config import require

C = TypeVar("C")


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal(Generic[C]):
    """A candidate to be scored.

    Attributes:
        order: Its number, from 0.
        candidate: The candidate.
        parent: Number of the candidate that it is a change of, or of the same candidate with a
            smaller budget; None if it was drawn.
        round: Number of the round that it was asked in; None if the search has no rounds.
        variable: The variable in which it differs from its parent, before repair; None if the
            search does not say.
        budget: How long it is to be trained for its score, in the unit of the search's settings;
            None if the search leaves that open.
    """

    order: int
    candidate: C
    parent: int | None = None
    round: int | None = None
    variable: str | None = None
    budget: int | None = None


class Record(Generic[C]):
    """Proposals in order, each candidate once for a budget, with their scores."""

    def __init__(self) -> None:
        self.proposals: list[Proposal[C]] = []
        self._scores: dict[int, float] = {}
        self._orders: dict[tuple[C, int | None], int] = {}

    def add(
        self,
        candidate: C,
        *,
        parent: int | None = None,
        round: int | None = None,
        variable: str | None = None,
        budget: int | None = None,
    ) -> Proposal[C]:
        """Number a candidate that is not known yet; it is open until its score is told."""
        assert not self.knows(candidate, budget)
        proposal = Proposal(
            order=len(self.proposals),
            candidate=candidate,
            parent=parent,
            round=round,
            variable=variable,
            budget=budget,
        )
        self.proposals.append(proposal)
        self._orders[candidate, budget] = proposal.order
        return proposal

    def tell(self, proposal: Proposal[C], score: float) -> None:
        """Take up the score of a candidate; higher is better, NaN is worse than any number.

        Raises:
            ConfigError: If the candidate is not one of these that waits for its score.
        """
        order = proposal.order
        is_known = 0 <= order < len(self.proposals) and self.proposals[order] == proposal
        is_open = is_known and order not in self._scores
        require(is_open, "a score must be that of a candidate that waits for one", proposal)
        self._scores[order] = -math.inf if math.isnan(score) else float(score)

    def knows(self, candidate: C, budget: int | None = None) -> bool:
        """Whether a candidate was proposed with a budget."""
        return (candidate, budget) in self._orders

    def order(self, candidate: C, budget: int | None = None) -> int:
        """Return the number of a candidate that is known."""
        return self._orders[candidate, budget]

    def score(self, candidate: C, budget: int | None = None) -> float:
        """Return the score of a candidate that is known and scored."""
        return self._scores[self._orders[candidate, budget]]

    def is_scored(self, order: int) -> bool:
        """Whether the score of a number was told."""
        return order in self._scores

    @property
    def has_open(self) -> bool:
        """Whether a proposal waits for its score."""
        return len(self._scores) < len(self.proposals)

    @property
    def history(self) -> list[tuple[Proposal[C], float]]:
        """Every scored candidate with its score, in order."""
        return [(self.proposals[order], self._scores[order]) for order in sorted(self._scores)]

    def rank(self, order: int) -> tuple[int, float, int]:
        """Return the key that sorts scored candidates, the best first.

        Scores of different budgets are not compared: a larger budget comes first. Of equal scores
        the first comes first.
        """
        return -(self.proposals[order].budget or 0), -self._scores[order], order

    def best(self) -> Proposal[C]:
        """Return the candidate that is first by `rank`.

        Raises:
            ConfigError: If none is scored.
        """
        require(bool(self._scores), "a best candidate needs a scored one", len(self._scores))
        return self.proposals[min(self._scores, key=self.rank)]
