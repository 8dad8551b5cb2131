"""Local search over any search space, one variable after the other."""

from collections.abc import Iterator
from itertools import count
from typing import TypeVar

from iac_core.config import require, require_at_least
from iac_core.searches.record import Record
from iac_core.searches.rounds import RoundSearch, Wanted
from iac_core.searches.space import SearchSpace, sample_new
from iac_core.seeding import numpy_generator

C = TypeVar("C")


def local_search(
    space: SearchSpace[C],
    *,
    n_evaluations: int,
    seed: int,
    n_restarts: int | None = None,
    start: C | None = None,
    record: Record[C] | None = None,
) -> RoundSearch[C]:
    """Return local search as MB-NAS has it (Bosma et al. 2022, section 2.3).

    From one random candidate, variables are visited in random order. All options of a variable
    are one round: each is set in the current candidate, repaired, and scored; the best one takes
    its place if it is strictly better, of equal ones the first. Passes over all variables follow,
    each in an order of its own, until one brings no gain. Then it starts again from a new random
    candidate (den Ottelander et al. 2020 and White et al. 2020 do; the paper does not say).

    The options of a round are all changes of the same candidate, so that they can be scored side
    by side; a serial reading would repair the later ones from an improvement among the earlier.

    Args:
        space: The space.
        n_evaluations: Candidates in all. A candidate that is known costs nothing.
        seed: The job's seed.
        n_restarts: Most restarts; None restarts until the budget is used.
        start: First candidate in place of a random one.
        record: Of an earlier search, whose scores are known.

    Raises:
        ConfigError: If the start is not of the space.
    """
    require_at_least(0, n_restarts=n_restarts)
    require(start is None or space.is_valid(start), "start must be of the space", start)
    known = Record[C]() if record is None else record

    def rounds() -> Iterator[list[Wanted[C]]]:
        for restart in count() if n_restarts is None else range(n_restarts + 1):
            if restart == 0 and start is not None:
                first: C | None = space.canonical(start)
            else:
                generator = numpy_generator(seed, "local_search", restart)
                first = sample_new(space, known.knows, generator)
            if first is None:
                return
            yield from _climb(space, known, first, seed=seed, restart=restart)

    return RoundSearch(rounds(), known, n_evaluations=n_evaluations)


def _climb(
    space: SearchSpace[C], known: Record[C], first: C, *, seed: int, restart: int
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
