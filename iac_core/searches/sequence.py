"""Searches one after the other, each in a space that follows from the best candidate so far."""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from iac_core.config import require
from iac_core.searches.record import Proposal, Record, Search

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
        self._go_on()

    @property
    def record(self) -> Record[C]:
        """Proposals and scores of all phases."""
        return self._record

    def ask(self, n: int | None = None) -> list[Proposal[C]]:
        """Return up to n candidates of the phase, None for all that can be decided now."""
        return self._search.ask(n)

    def tell(self, order: int, score: float) -> None:
        """Take up the score of an open candidate.

        Raises:
            ConfigError: If no such candidate is open.
        """
        self._search.tell(order, score)
        self._go_on()

    @property
    def is_done(self) -> bool:
        """Whether there is nothing more to ask in the last phase."""
        return not self._phases and self._search.is_done

    def _go_on(self) -> None:
        while self._phases and self._search.is_done and not self._record.has_open:
            self._search = self._phases.pop(0)(self._record)
