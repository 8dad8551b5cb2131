"""Searches one after the other, each in a space that follows from the best candidate so far."""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from iac_core.config import require
from iac_core.searches.interface import DONE, IDLE, Ask, Search
from iac_core.searches.record import Proposal, Record

C = TypeVar("C")
Phase = Callable[[Record[C]], Search[C]]
"""``phase(record)`` → a search that goes on with the record of those before it."""


class SearchInSequence(Generic[C]):
    """Phases, each of which begins when the one before is done and all its scores are told.

    They share one record: numbers go on, and no candidate is scored twice.

    Args:
        phases: At least one.
    """

    def __init__(self, phases: Sequence[Phase[C]]) -> None:
        require(bool(phases), "a sequence must have at least one phase", len(phases))
        self._record: Record[C] = Record()
        self._phases = list(phases)
        self._search = self._phases.pop(0)(self._record)

    @property
    def record(self) -> Record[C]:
        """Proposals and scores of all phases."""
        return self._record

    def ask(self, n: int | None = None) -> Ask[C]:
        """Return 1 to n candidates of the phase, None for all that can be decided now.

        Or `IDLE`, also where the next phase waits for a score of this one, or `DONE`.
        """
        asked = self._search.ask(n)
        while asked is DONE and self._phases:
            if self._record.has_open:
                return IDLE
            self._search = self._phases.pop(0)(self._record)
            asked = self._search.ask(n)
        return asked

    def tell(self, proposal: Proposal[C], score: float) -> None:
        """Take up the score of an open candidate, see `Search.tell`."""
        self._search.tell(proposal, score)
