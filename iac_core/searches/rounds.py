"""Searches in rounds: all candidates of a round are scored before the next round is decided."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from iac_core.config import require, require_at_least
from iac_core.searches.interface import DONE, IDLE, Ask
from iac_core.searches.record import Proposal, Record

C = TypeVar("C")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted(Generic[C]):
    """A candidate whose score a round needs. Attributes: see `Proposal`."""

    candidate: C
    parent: int | None = None
    variable: str | None = None
    budget: int | None = None


class RoundSearch(Generic[C]):
    """A search that is written as a generator of rounds, as ask and tell.

    Candidates that are known cost nothing and are not asked again. Where the budget ends within a
    round, its first candidates are still asked, and the search ends.

    Args:
        rounds: Yields the candidates of each round, no two of them equal; when it goes on,
            `record` has all their scores.
        record: Of an earlier search, or empty.
        n_evaluations: New candidates in all.
    """

    def __init__(
        self, rounds: Iterator[Sequence[Wanted[C]]], record: Record[C], *, n_evaluations: int
    ) -> None:
        require_at_least(1, n_evaluations=n_evaluations)
        require(not record.has_open, "an earlier search must have all its scores", record.has_open)
        self._record, self._rounds = record, rounds
        self._n_left = n_evaluations
        rounds_before = (proposal.round for proposal in record.proposals)
        self._n_rounds = 1 + max((r for r in rounds_before if r is not None), default=-1)
        self._waiting: list[Wanted[C]] = []

    @property
    def record(self) -> Record[C]:
        """Proposals and scores."""
        return self._record

    def ask(self, n: int | None = None) -> Ask[C]:
        """Return 1 to n candidates of the round, None for the rest of it; `IDLE` or `DONE`."""
        require_at_least(1, n=n)
        if not self._waiting and not self._record.has_open:
            self._start_round()
        if not self._waiting:
            return IDLE if self._n_left and self._record.has_open else DONE
        n_taken = len(self._waiting) if n is None else n
        taken, self._waiting = self._waiting[:n_taken], self._waiting[n_taken:]
        return [
            self._record.add(
                wanted.candidate,
                parent=wanted.parent,
                round=self._n_rounds - 1,
                variable=wanted.variable,
                budget=wanted.budget,
            )
            for wanted in taken
        ]

    def tell(self, proposal: Proposal[C], score: float) -> None:
        """Take up the score of an open candidate, see `Search.tell`."""
        self._record.tell(proposal, score)

    def _start_round(self) -> None:
        """Take rounds until one wants a new candidate; none waits if there is no such round."""
        while self._n_left and not self._waiting:
            wanted = next(self._rounds, None)
            if wanted is None:
                return
            new = [one for one in wanted if not self._record.knows(one.candidate, one.budget)]
            self._waiting = new[: self._n_left]
            self._n_left -= len(self._waiting)
            self._n_rounds += bool(self._waiting)
