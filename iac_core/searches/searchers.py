"""The table of searchers, and searches of mixed-block networks by any of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from iac_core.backbones.mixed_block.genotype import MixedGenotype
from iac_core.config import require, require_at_least
from iac_core.registry import entry_of
from iac_core.searches.evolution import RegularisedEvolution
from iac_core.searches.interface import Search
from iac_core.searches.local_search import local_search
from iac_core.searches.mixed_block import MixedBlockSpace
from iac_core.searches.mixed_block_settings import Kind
from iac_core.searches.random_search import random_search
from iac_core.searches.record import Record
from iac_core.searches.rounds import RoundSearch
from iac_core.searches.sequence import Phase, SearchInSequence
from iac_core.searches.space import SearchSpace
from iac_core.searches.successive_halving import require_budgets, successive_halving
from iac_core.seeding import derive_seed

C = TypeVar("C")
_FORBID_UNKNOWN: dict[str, Any] = {"extra": "forbid"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSearchSettings:
    """Local search, see `iac_core.searches.local_search`.

    Attributes:
        n_evaluations: Candidates in all; the paper's 150 are less than two passes.
        n_restarts: Most restarts from new random candidates; None has no limit but the budget.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID_UNKNOWN
    n_evaluations: int = 150
    n_restarts: int | None = None

    def __post_init__(self) -> None:
        require_at_least(1, n_evaluations=self.n_evaluations)
        require_at_least(0, n_restarts=self.n_restarts)


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomSearchSettings:
    """Random search. Attributes: n_evaluations: candidates in all."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID_UNKNOWN
    n_evaluations: int = 150

    def __post_init__(self) -> None:
        require_at_least(1, n_evaluations=self.n_evaluations)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvolutionSettings:
    """Regularised evolution, see `iac_core.searches.evolution` (our choice for 150 candidates).

    Attributes:
        n_evaluations: Candidates in all.
        population: Members.
        tournament: Members that a parent is the best of.
        lag: A candidate is decided from those up to so many before it, and so many are scored
            side by side.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID_UNKNOWN
    n_evaluations: int = 150
    population: int = 24
    tournament: int = 6
    lag: int = 4

    def __post_init__(self) -> None:
        require_at_least(1, n_evaluations=self.n_evaluations, population=self.population)
        require_at_least(1, tournament=self.tournament, lag=self.lag)


@dataclass(frozen=True, slots=True, kw_only=True)
class SuccessiveHalvingSettings:
    """Successive halving, see `iac_core.searches.successive_halving` (our choice of budgets).

    Attributes:
        n_evaluations: Scores in all, of all rungs together.
        budgets: Epochs of a candidate on each rung, increasing.
        reduction: Of so many candidates of a rung one is promoted.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID_UNKNOWN
    n_evaluations: int = 150
    budgets: tuple[int, ...] = (10, 30, 90)
    reduction: int = 3

    def __post_init__(self) -> None:
        require_at_least(1, n_evaluations=self.n_evaluations)
        require_at_least(2, reduction=self.reduction)
        require_budgets(self.budgets)


@dataclass(frozen=True, slots=True)
class Searcher:
    """A searcher of the table.

    Attributes:
        build: Called as ``build(settings, space, n_evaluations=, seed=, start=, record=)``;
            `start` is a first candidate, or None.
        Settings: Class of its settings, one for each entry, with ``n_evaluations``.
    """

    build: Callable[..., Search[Any]]
    Settings: type


def _local_search(
    settings: LocalSearchSettings,
    space: SearchSpace[C],
    *,
    n_evaluations: int,
    seed: int,
    start: C | None,
    record: Record[C],
) -> RoundSearch[C]:
    return local_search(
        space,
        n_evaluations=n_evaluations,
        seed=seed,
        n_restarts=settings.n_restarts,
        start=start,
        record=record,
    )


def _random_search(
    settings: RandomSearchSettings,
    space: SearchSpace[C],
    *,
    n_evaluations: int,
    seed: int,
    start: C | None,
    record: Record[C],
) -> RoundSearch[C]:
    return random_search(space, n_evaluations=n_evaluations, seed=seed, record=record)


def _evolution(
    settings: EvolutionSettings,
    space: SearchSpace[C],
    *,
    n_evaluations: int,
    seed: int,
    start: C | None,
    record: Record[C],
) -> RegularisedEvolution[C]:
    return RegularisedEvolution(
        space,
        population=settings.population,
        tournament=settings.tournament,
        n_evaluations=n_evaluations,
        seed=seed,
        lag=settings.lag,
        record=record,
    )


def _successive_halving(
    settings: SuccessiveHalvingSettings,
    space: SearchSpace[C],
    *,
    n_evaluations: int,
    seed: int,
    start: C | None,
    record: Record[C],
) -> RoundSearch[C]:
    return successive_halving(
        space,
        n_evaluations=n_evaluations,
        budgets=settings.budgets,
        reduction=settings.reduction,
        seed=seed,
        record=record,
    )


SEARCHERS: dict[str, Searcher] = {
    "local_search": Searcher(_local_search, LocalSearchSettings),
    "random_search": Searcher(_random_search, RandomSearchSettings),
    "evolution": Searcher(_evolution, EvolutionSettings),
    "successive_halving": Searcher(_successive_halving, SuccessiveHalvingSettings),
}
"""Name → searcher."""


def mixed_block_search(
    settings: Any,  # noqa: ANN401 - those of any searcher
    space: MixedBlockSpace,
    phases: Sequence[Sequence[Kind]],
    *,
    seed: int,
    n_evaluations: Sequence[int] | None = None,
) -> SearchInSequence[MixedGenotype]:
    """Return a search by any searcher whose phases each free some kinds of variables.

    Masked variables of the first phase are those of the space's base; in a later phase they are
    those of the best network so far, which a local search also starts from.

    Args:
        settings: Those of a searcher.
        space: The space; its own mask is not used.
        phases: Such as an entry of `iac_core.searches.mixed_block_settings.MASKS`.
        seed: The job's seed.
        n_evaluations: Candidates of each phase; None deals those of the settings out equally, the
            first phases taking the rest.

    Raises:
        UnknownNameError: If no searcher has such settings.
        ConfigError: If a phase has no candidate, or its mask is not valid.
    """
    searcher = entry_of(settings, SEARCHERS, what="searcher")
    n_phases, n_all = len(phases), settings.n_evaluations
    budgets = n_evaluations or [
        n_all // n_phases + (index < n_all % n_phases) for index in range(n_phases)
    ]
    rule = f"n_evaluations must give each of {n_phases} phases at least 1"
    require(len(budgets) == n_phases and min(budgets, default=0) >= 1, rule, budgets)

    def phase(index: int) -> Phase[MixedGenotype]:
        def build(record: Record[MixedGenotype]) -> Search[MixedGenotype]:
            best = record.best().candidate if index else None
            masked: SearchSpace[MixedGenotype] = space.masked(phases[index], base=best)
            return searcher.build(
                settings,
                masked,
                n_evaluations=budgets[index],
                seed=derive_seed(seed, "phase", index) if index else seed,
                start=best,
                record=record,
            )

        return build

    return SearchInSequence([phase(index) for index in range(n_phases)])
