"""What a search chooses from: the protocol that every space follows."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Protocol, TypeVar

import numpy as np

C = TypeVar("C")


class SearchSpace(Protocol[C]):
    """Candidates that are settings of a few variables, each with a few options.

    A candidate is hashable. `sample`, `neighbours` and `mutate` return valid candidates in
    canonical form: what a change makes invalid is repaired.
    """

    @property
    def variables(self) -> Sequence[str]:
        """Names of the variables that are free and have more than one option."""
        ...

    def options(self, variable: str) -> Sequence[Hashable]:
        """Return the values of a variable, at least two; not all are valid in each candidate."""
        ...

    def is_valid(self, candidate: C) -> bool:
        """Whether a candidate is of the space, in canonical form or not."""
        ...

    def canonical(self, candidate: C) -> C:
        """Return the form that all equal candidates share.

        Raises:
            ConfigError: If the candidate is not valid.
        """
        ...

    def sample(self, generator: np.random.Generator) -> C:
        """Draw a candidate."""
        ...

    def neighbours(self, candidate: C, variable: str) -> list[C]:
        """Return a candidate with each other option of one variable, in the order of options.

        Repair may move other variables too. No two are equal, and none is the candidate itself.
        """
        ...

    def mutate(self, candidate: C, generator: np.random.Generator) -> C:
        """Return a random change of a candidate; the candidate itself if it has none."""
        ...


def others(found: Iterable[C], candidate: C) -> list[C]:
    """Return each candidate once, in order, without one of them.

    Examples:
        >>> others([3, 1, 2, 3], 1)
        [3, 2]
    """
    return [each for each in dict.fromkeys(found) if each != candidate]


def random_neighbour(space: SearchSpace[C], candidate: C, generator: np.random.Generator) -> C:
    """Draw a variable uniformly, then a neighbour in it uniformly.

    A variable without neighbours is passed over; without any the candidate itself is returned.
    """
    for index in generator.permutation(len(space.variables)):
        found = space.neighbours(candidate, space.variables[index])
        if found:
            return found[int(generator.integers(len(found)))]
    return candidate


def sample_new(
    space: SearchSpace[C],
    is_known: Callable[[C], bool],
    generator: np.random.Generator,
    *,
    n_draws: int = 1000,
) -> C | None:
    """Draw until a candidate is not known; None if `n_draws` are: the space counts as seen."""
    for _ in range(n_draws):
        candidate = space.sample(generator)
        if not is_known(candidate):
            return candidate
    return None
