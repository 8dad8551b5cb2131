"""Random search over any search space."""

from collections.abc import Iterator
from typing import TypeVar

from iac_core.searches.record import Record
from iac_core.searches.rounds import RoundSearch, Wanted
from iac_core.searches.space import SearchSpace, sample_new
from iac_core.seeding import numpy_generator

C = TypeVar("C")


def random_search(
    space: SearchSpace[C], *, n_evaluations: int, seed: int, record: Record[C] | None = None
) -> RoundSearch[C]:
    """Return a search that draws all its candidates in one round, none twice.

    Args:
        space: The space.
        n_evaluations: Candidates in all; fewer if the space has no more.
        seed: The job's seed.
        record: Of an earlier search, whose candidates are not drawn again.
    """
    known = Record[C]() if record is None else record

    def rounds() -> Iterator[list[Wanted[C]]]:
        drawn = distinct_samples(space, known, n_evaluations, seed=seed)
        yield [Wanted(candidate=candidate) for candidate in drawn]

    return RoundSearch(rounds(), known, n_evaluations=n_evaluations)


def distinct_samples(
    space: SearchSpace[C], record: Record[C], n: int, *, seed: int, budget: int | None = None
) -> list[C]:
    """Draw candidates, each once and none that a record knows with a budget.

    Args:
        space: The space.
        record: Of an earlier search, or empty.
        n: Candidates; fewer are returned if the space seems to have no more.
        seed: The job's seed; the first candidates do not depend on n.
        budget: Of the candidates.
    """
    drawn: dict[C, None] = {}
    for index in range(n):
        candidate = sample_new(
            space,
            lambda one: record.knows(one, budget) or one in drawn,
            numpy_generator(seed, "random_search", index),
        )
        if candidate is None:
            break
        drawn[candidate] = None
    return list(drawn)
