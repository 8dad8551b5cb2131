"""What every search over candidates offers: it is asked for candidates and told their scores."""

from enum import Enum
from typing import Final, Protocol, TypeVar

from iac_core.config import require
from iac_core.searches.record import Proposal, Record

C = TypeVar("C")


class NoCandidate(Enum):
    """Why a search names no candidate.

    Attributes:
        IDLE: The next one depends on a score that is missing.
        DONE: There is no next one; open candidates may still be told.
    """

    IDLE = "idle"
    DONE = "done"


IDLE: Final = NoCandidate.IDLE
DONE: Final = NoCandidate.DONE
Ask = list[Proposal[C]] | NoCandidate
"""At least one candidate, or why there is none."""


class Search(Protocol[C]):
    """A search that is asked for candidates and told their scores.

    It is deterministic in its seed and in the scores of its candidates; the order in which open
    candidates are told decides nothing. A search that was killed goes on by being asked again
    and told the scores that are known.
    """

    @property
    def record(self) -> Record[C]:
        """Proposals and scores."""
        ...

    def ask(self, n: int | None = None) -> Ask[C]:
        """Return 1 to n new candidates, `IDLE` or `DONE`.

        Args:
            n: None asks for all that can be decided now.
        """
        ...

    def tell(self, proposal: Proposal[C], score: float) -> None:
        """Take up the score of a candidate; higher is better, NaN is worse than any number.

        Raises:
            ConfigError: If the candidate is not one of this search that waits for its score.
        """
        ...


def ask_one(search: Search[C]) -> Proposal[C] | None:
    """Return the next candidate of a search whose scores are all told; None if it is done.

    Raises:
        ConfigError: If the search waits for a score.
    """
    asked = search.ask(1)
    if isinstance(asked, NoCandidate):
        require(asked is DONE, "all scores must be told before the next candidate", asked.value)
        return None
    return asked[0]
