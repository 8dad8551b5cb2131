"""Successive halving over any search space."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TypeVar

from iac_core.config import require, require_at_least
from iac_core.searches.random_search import distinct_samples
from iac_core.searches.record import Record
from iac_core.searches.rounds import RoundSearch, Wanted
from iac_core.searches.space import SearchSpace

C = TypeVar("C")


def successive_halving(
    space: SearchSpace[C],
    *,
    n_evaluations: int,
    budgets: Sequence[int],
    reduction: int,
    seed: int,
    record: Record[C] | None = None,
) -> RoundSearch[C]:
    """Return successive halving (Jamieson and Talwalkar 2016) from random candidates.

    The first rung scores random candidates with the smallest budget; the best of each rung are
    scored again on the next with its budget, of equal scores those that were drawn first. A rung
    is one round: nothing is promoted before all its scores are told.

    Args:
        space: The space.
        n_evaluations: Scores in all, of all rungs together, see `rung_sizes`.
        budgets: Of the rungs, increasing, in any unit, such as epochs.
        reduction: Of so many candidates of a rung one is promoted.
        seed: The job's seed; the first rung is that of `random_search`.
        record: Of an earlier search; what was scored with a budget is not scored with it again.

    Raises:
        ConfigError: If the budgets do not increase, or a number is out of its range.
    """
    require_budgets(budgets)
    require_at_least(2, reduction=reduction)
    known = Record[C]() if record is None else record

    def rounds() -> Iterator[list[Wanted[C]]]:
        n = rung_sizes(n_evaluations, len(budgets), reduction)[0]
        rung = distinct_samples(space, known, n, seed=seed, budget=budgets[0])
        yield [Wanted(candidate=candidate, budget=budgets[0]) for candidate in rung]
        for before, budget in pairwise(budgets):
            scores = {candidate: known.score(candidate, before) for candidate in rung}
            ranked = sorted(rung, key=scores.__getitem__, reverse=True)  # stable: ties stay
            rung = ranked[: max(1, len(rung) // reduction)]
            yield [
                Wanted(candidate=one, parent=known.order(one, before), budget=budget)
                for one in rung
            ]

    return RoundSearch(rounds(), known, n_evaluations=n_evaluations)


def rung_sizes(n_evaluations: int, n_rungs: int, reduction: int) -> list[int]:
    """Return how many candidates each rung scores, as many as fit into a number of scores.

    Each rung has a `reduction`-th of the one before, rounded down, and at least one. If even one
    candidate on each rung is too much, the rungs have one each and the last are not reached.

    Examples:
        >>> rung_sizes(40, 3, 3)
        [28, 9, 3]
    """
    require_at_least(1, n_evaluations=n_evaluations)
    for n in range(n_evaluations, 0, -1):
        sizes = [max(1, n // reduction**rung) for rung in range(n_rungs)]
        if sum(sizes) <= n_evaluations:
            return sizes
    return [1] * n_rungs


def require_budgets(budgets: Sequence[int]) -> None:
    """Raise a `ConfigError` unless there is a budget, and each is above the one before."""
    rule = "budgets must be one or more numbers that increase, each at least 1"
    increases = all(before < after for before, after in pairwise(budgets))
    require(bool(budgets) and budgets[0] >= 1 and increases, rule, budgets)
    require_at_least(1, budget=budgets[-1])
