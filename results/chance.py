"""Agreement that random cells and random rankings have by chance, by Monte Carlo."""

from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np
from numpy import ndarray

N_DRAWS = 4000
"""Draws of each null. With another seed the 2.5 % and 97.5 % quantiles of five cells move by 0.002
(standard deviation); those of two cells may move by one step, since their values are discrete."""
N_INPUTS = 2
"""Inputs of a cell, which are its states 0 and 1; node i is state ``2 + i``."""
_SEED = 0
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class CellShape:
    """What random cells have in common with those that were found.

    Attributes:
        in_degrees: Kept edges into every node, a tuple per cell of length levels × nodes.
        n_nodes: Nodes of a cell.
        n_operations: Candidate operations that can be chosen, without ``none``.
    """

    in_degrees: tuple[tuple[int, ...], ...]
    n_nodes: int
    n_operations: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CellNull:
    """Agreement of random cells.

    Attributes:
        jaccard: Mean pairwise Jaccard index, ``(draws,)``.
        kappa: Fleiss' κ, ``(draws,)``.
    """

    jaccard: ndarray
    kappa: ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Chance:
    """A value beside its null.

    Attributes:
        low: The null's 2.5 % quantile; NaN if the value is.
        high: Its 97.5 % quantile.
        p: (1 + draws with at least the value) / (1 + draws), so never 0; one-sided.
    """

    low: float
    high: float
    p: float


UNKNOWN = Chance(low=float("nan"), high=float("nan"), p=float("nan"))
"""Of a value that is not defined, or whose null is not known."""


def beside(null: ndarray, value: float) -> Chance:
    """Place a value in its null.

    Args:
        null: Values under chance, ``(draws,)``.
        value: The value found; NaN gives `UNKNOWN`.

    Examples:
        >>> beside(np.array([0.0, 0.5, 1.0]), 0.5).p
        0.75
    """
    if np.isnan(value):
        return UNKNOWN
    low, high = np.quantile(null, [0.025, 0.975])
    # The same agreement computed in another order of sums differs in its last digits.
    reached = int((null >= value - _ROUNDING).sum())
    return Chance(low=float(low), high=float(high), p=(1 + reached) / (1 + len(null)))


@cache
def cell_null(shape: CellShape) -> CellNull:
    """Return the agreement of `N_DRAWS` sets of random cells.

    Args:
        shape: Of the cells; at least two.
    """
    drawn = random_choices(shape, N_DRAWS, np.random.default_rng(_SEED))
    return CellNull(jaccard=_fixed(jaccards(drawn)), kappa=_fixed(kappas(drawn)))


@cache
def ranking_null(n_searches: int, n_edges: int, n_operations: int) -> ndarray:
    """Return Kendall's τ of random rankings, its mean over pairs of searches and over edges.

    Every search ranks the operations of every edge once, so the pairs depend on each other as
    those of real searches do. With the signs ``s`` (±1) of a ranking's ``m`` pairs of operations,
    τ of two rankings is ``s · t / m``; the sum over all pairs of searches is therefore
    ``(|Σ s|² - n m) / (2 m)``.

    Args:
        n_searches: At least two.
        n_edges: Edges of the searched cell, of all levels.
        n_operations: Operations that an edge ranks, at least two.

    Returns:
        ``(draws,)``, the draws being `N_DRAWS`.
    """
    generator = np.random.default_rng(_SEED)
    pairs = list(combinations(range(n_operations), 2))
    ahead = np.zeros((len(pairs), n_edges, N_DRAWS), dtype=np.int32)
    for _ in range(n_searches):
        places = generator.random((n_operations, n_edges, N_DRAWS), dtype=np.float32)
        for index, (first, second) in enumerate(pairs):
            ahead[index] += places[first] > places[second]
    squared = ((2 * ahead - n_searches) ** 2).sum(axis=0) / len(pairs)
    return _fixed(((squared - n_searches) / (n_searches * (n_searches - 1))).mean(axis=0))


def random_choices(shape: CellShape, n_draws: int, generator: np.random.Generator) -> ndarray:
    """Draw sets of cells: distinct sources for each node, an operation for each kept edge.

    Args:
        shape: Of the cells.
        n_draws: Sets.
        generator: Where the draws come from.

    Returns:
        ``(edges, cells, draws)``, the edges by level, then target, then source: 0 where an edge
        is not kept, else the number of its operation, from 1.
    """
    degrees = np.array(shape.in_degrees)
    n_cells, found = len(degrees), []
    for place in range(degrees.shape[1]):
        size = (N_INPUTS + place % shape.n_nodes, n_cells, n_draws)
        order = generator.random(size, dtype=np.float32).argsort(axis=0)
        operations = generator.integers(1, shape.n_operations + 1, size, dtype=np.uint8)
        found.append(np.where(order < degrees[:, place, None], operations, np.uint8(0)))
    return np.concatenate(found)


def jaccards(choices: ndarray) -> ndarray:
    """Return the mean over pairs of |A ∩ B| / |A ∪ B| of the kept (edge, operation) sets.

    Args:
        choices: ``(edges, cells, draws)``, as `random_choices` returns them.

    Returns:
        ``(draws,)``.
    """
    kept = choices > 0
    sizes = kept.sum(axis=0)
    n_cells = choices.shape[1]
    total: ndarray = np.zeros(choices.shape[2])
    for cell in range(n_cells - 1):
        is_same = (choices[:, cell + 1 :] == choices[:, cell, None]) & kept[:, cell, None]
        common = is_same.sum(axis=0, dtype=np.int32)
        total += (common / (sizes[cell + 1 :] + sizes[cell] - common)).sum(axis=0)
    total /= n_cells * (n_cells - 1) / 2
    return total


def kappas(choices: ndarray) -> ndarray:
    """Return Fleiss' κ of the choice on each edge that any cell of a set keeps.

    Cells are the raters, edges the subjects, and "not kept" is a category.

    Args:
        choices: ``(edges, cells, draws)``, as `random_choices` returns them.

    Returns:
        ``(draws,)``; 1 where a set has one category alone.

    Source: Fleiss, Psychological Bulletin 76 (1971), equations 1 to 7.
    """
    n_cells = choices.shape[1]
    is_subject = (choices > 0).any(axis=1)
    n_votes = is_subject.sum(axis=0) * n_cells
    agreeing, expected = np.zeros(choices.shape[2]), np.zeros(choices.shape[2])
    for category in range(int(choices.max()) + 1):
        votes = np.where(is_subject, (choices == category).sum(axis=1, dtype=np.int32), 0)
        agreeing += (votes * (votes - 1)).sum(axis=0)
        expected += (votes.sum(axis=0) / n_votes) ** 2
    observed = agreeing / (n_votes * (n_cells - 1))
    is_one = np.isclose(expected, 1)
    spread = np.where(is_one, 1, 1 - expected)
    kappa: ndarray = np.where(is_one, 1.0, (observed - expected) / spread)
    return kappa


def _fixed(values: ndarray) -> ndarray:
    """The array, which a cache hands out more than once, read-only."""
    values.setflags(write=False)
    return values
