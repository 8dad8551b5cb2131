"""What every search over candidates offers, and what it remembers."""

import math
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from iac_core.config import require

C = TypeVar("C")


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal(Generic[C]):
    """A candidate to be scored.

    Attributes:
        order: Its number, from 0.
        candidate: The candidate.
        parent: Number of the candidate that it is a change of; None if it was drawn.
        round: Number of the round that it was asked in; None if the search has no rounds.
        variable: The variable in which it differs from its parent, before repair; None if the
            search does not say.
    """

    order: int
    candidate: C
    parent: int | None = None
    round: int | None = None
    variable: str | None = None


class Record(Generic[C]):
    """Proposals in order, each candidate once, with the scores that they were told."""

    def __init__(self) -> None:
        self.proposals: list[Proposal[C]] = []
        self._scores: dict[int, float] = {}
        self._orders: dict[C, int] = {}

    def add(
        self,
        candidate: C,
        *,
        parent: int | None = None,
        round: int | None = None,
        variable: str | None = None,
    ) -> Proposal[C]:
        """Number a candidate that is not known yet; it is open until its score is told."""
        assert candidate not in self._orders
        order = len(self.proposals)
        proposal = Proposal(
            order=order, candidate=candidate, parent=parent, round=round, variable=variable
        )
        self.proposals.append(proposal)
        self._orders[candidate] = order
        return proposal

    def tell(self, order: int, score: float) -> None:
        """Take up the score of a candidate; higher is better, NaN is worse than any number.

        Raises:
            ConfigError: If no such candidate is open.
        """
        is_open = 0 <= order < len(self.proposals) and order not in self._scores
        require(is_open, "a score must be that of a candidate that waits for one", order)
        self._scores[order] = -math.inf if math.isnan(score) else float(score)

    def knows(self, candidate: C) -> bool:
        """Whether a candidate was proposed."""
        return candidate in self._orders

    def order(self, candidate: C) -> int:
        """Return the number of a candidate that is known."""
        return self._orders[candidate]

    def score(self, candidate: C) -> float:
        """Return the score of a candidate that is known and scored."""
        return self._scores[self._orders[candidate]]

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

    def rank(self, order: int) -> tuple[float, int]:
        """Return what scored candidates are sorted by: the best first, of equal ones the first."""
        return -self._scores[order], order

    def best(self) -> Proposal[C]:
        """Return the candidate of the best score, the first of equal ones.

        Raises:
            ConfigError: If none is scored.
        """
        require(bool(self._scores), "a best candidate needs a scored one", len(self._scores))
        return self.proposals[min(self._scores, key=self.rank)]


class Search(Protocol[C]):
    """A search that is asked for candidates and told their scores.

    It is deterministic in its seed and in the scores of its candidates; the order in which open
    candidates are told decides nothing.
    """

    @property
    def record(self) -> Record[C]:
        """Proposals and scores."""
        ...

    def ask(self, n: int | None = None) -> list[Proposal[C]]:
        """Return up to n new candidates, None for all that can be decided now.

        None are returned while scores that the next ones depend on are missing, and when the
        search `is_done`.
        """
        ...

    def tell(self, order: int, score: float) -> None:
        """Take up the score of an open candidate."""
        ...

    @property
    def is_done(self) -> bool:
        """Whether there is nothing more to ask; scores may still be missing."""
        ...
