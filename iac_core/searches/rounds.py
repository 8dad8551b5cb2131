"""Searches in rounds: all candidates of a round are scored before the next round is decided."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Generic, TypeVar

import numpy as np

from iac_core.config import require, require_at_least
from iac_core.searches.record import Proposal, Record
from iac_core.searches.space import SearchSpace, VariableSpace
from iac_core.seeding import numpy_generator

C = TypeVar("C")
_MOST_DRAWS = 1000
"""Draws for a candidate that is new; after so many that are known the space counts as seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted(Generic[C]):
    """A candidate whose score a round needs. Attributes: see `Proposal`."""

    candidate: C
    parent: int | None = None
    variable: str | None = None


class RoundSearch(Generic[C]):
    """A search that is written as a generator of rounds, as ask and tell.

    Candidates that are known cost nothing and are not asked again. Where the budget ends within a
    round, its first candidates are still asked, and the search ends.

    Args:
        rounds: Yields what each round wants, no two of them equal; when it goes on, `record` has
            all these scores.
        record: What is known; of an earlier search, or empty.
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
        self._go_on()

    @property
    def record(self) -> Record[C]:
        """Proposals and scores."""
        return self._record

    def ask(self, n: int | None = None) -> list[Proposal[C]]:
        """Return up to n candidates of the round, None for the rest of it."""
        require_at_least(1, n=n)
        n_taken = len(self._waiting) if n is None else n
        taken, self._waiting = self._waiting[:n_taken], self._waiting[n_taken:]
        return [
            self._record.add(
                wanted.candidate,
                parent=wanted.parent,
                round=self._n_rounds - 1,
                variable=wanted.variable,
            )
            for wanted in taken
        ]

    def tell(self, order: int, score: float) -> None:
        """Take up the score of a candidate; higher is better, NaN is worse than any number.

        Raises:
            ConfigError: If no such candidate is open.
        """
        self._record.tell(order, score)
        if not self._waiting and not self._record.has_open:
            self._go_on()

    @property
    def is_done(self) -> bool:
        """Whether there is nothing more to ask: the budget is used, or the rounds have ended."""
        return not self._waiting and (self._n_left == 0 or not self._record.has_open)

    def _go_on(self) -> None:
        """Take rounds until one wants something new; leaves nothing waiting at the end."""
        while self._n_left:
            wanted = next(self._rounds, None)
            if wanted is None:
                return
            new = [each for each in wanted if not self._record.knows(each.candidate)]
            self._waiting = new[: self._n_left]
            if self._waiting:
                self._n_left -= len(self._waiting)
                self._n_rounds += 1
                return


def random_search(
    space: SearchSpace[C], *, n_evaluations: int, seed: int, record: Record[C] | None = None
) -> RoundSearch[C]:
    """Return a search that draws all its candidates in one round, none twice.

    Args:
        space: What is searched.
        n_evaluations: Candidates in all; fewer if the space has no more.
        seed: The job's seed.
        record: Of an earlier search, whose candidates are not drawn again.
    """
    known = Record[C]() if record is None else record

    def rounds() -> Iterator[list[Wanted[C]]]:
        drawn: dict[C, None] = {}
        for index in range(n_evaluations):
            generator = numpy_generator(seed, "random_search", index)
            candidate = _new(space, known, generator, drawn)
            if candidate is None:
                break
            drawn[candidate] = None
        yield [Wanted(candidate=candidate) for candidate in drawn]

    return RoundSearch(rounds(), known, n_evaluations=n_evaluations)


def local_search(
    space: VariableSpace[C],
    *,
    n_evaluations: int,
    seed: int,
    n_restarts: int | None = None,
    start: C | None = None,
    record: Record[C] | None = None,
) -> RoundSearch[C]:
    """Return local search as MB-NAS has it (Bosma et al. 2022, section 2.3).

    From one random candidate, variables are visited in random order. All options of a variable
    are one round: each is set in the candidate at hand, repaired, and scored; the best one takes
    its place if it is strictly better. Passes over all variables follow, each in an order of its
    own, until one brings no gain. Then it starts again from a new random candidate (den
    Ottelander et al. 2020 and White et al. 2020 do; the paper does not say).

    The options of a round are all changes of the same candidate, so that they can be scored side
    by side; a serial reading would repair the later ones from an improvement among the earlier.

    Args:
        space: What is searched.
        n_evaluations: Candidates in all. A candidate that is known costs nothing.
        seed: The job's seed.
        n_restarts: Most restarts; None restarts until the budget is used.
        start: First candidate in place of a random one.
        record: Of an earlier search, whose scores are known.
    """
    require_at_least(0, n_restarts=n_restarts)
    known = Record[C]() if record is None else record

    def rounds() -> Iterator[list[Wanted[C]]]:
        for restart in count() if n_restarts is None else range(n_restarts + 1):
            first = start if restart == 0 else None
            if first is None:
                first = _new(space, known, numpy_generator(seed, "local_search", restart))
            if first is None:
                return
            yield from _climb(space, known, first, seed=seed, restart=restart)

    return RoundSearch(rounds(), known, n_evaluations=n_evaluations)


def _climb(
    space: VariableSpace[C], known: Record[C], first: C, *, seed: int, restart: int
) -> Iterator[list[Wanted[C]]]:
    """Go from a candidate to a local optimum, a round for each variable of each pass."""
    yield [Wanted(candidate=first)]
    current = first
    for number in count():
        before = current
        generator = numpy_generator(seed, "local_search", restart, "pass", number)
        for index in generator.permutation(len(space.variables)):
            variable = space.variables[index]
            options = space.neighbours(current, variable)
            parent = known.order(current)
            yield [
                Wanted(candidate=option, parent=parent, variable=variable) for option in options
            ]
            best = max(options, key=known.score, default=current)
            if known.score(best) > known.score(current):
                current = best
        if current == before:
            return


def _new(
    space: SearchSpace[C],
    known: Record[C],
    generator: np.random.Generator,
    drawn: dict[C, None] | None = None,
) -> C | None:
    """Draw a candidate that is not known; None if the space seems to have no other."""
    for _ in range(_MOST_DRAWS):
        candidate = space.sample(generator)
        if not known.knows(candidate) and candidate not in (drawn or ()):
            return candidate
    return None
