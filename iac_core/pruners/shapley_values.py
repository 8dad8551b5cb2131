"""Shapley values by sampling permutations: what each player adds, averaged over all orders.

Sources: Shapley-NAS's code for removal from the whole and truncation; antithetic pairs (a
permutation and its reverse) and the standard error are the usual ones of Monte Carlo estimation.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

ValueOf = Callable[[Bool[ndarray, "n players"], int], Float[ndarray, " n"]]
"""``value_of(coalitions, draw)`` → their values; ``draw`` counts permutation pairs from 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How permutations are drawn and when to stop.

    Attributes:
        max_permutations: At most so many.
        antithetic: Whether each permutation comes with its reverse, and their mean counts once.
        truncation: A permutation ends once the value is below this share of the whole's (the
            players not reached count 0 in it); 0 never truncates. Wants values above 0.
        chunk: Coalitions of a permutation that are evaluated before truncation is looked at.
    """

    max_permutations: int = 10
    antithetic: bool = True
    truncation: float = 0.0
    chunk: int = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapleyEstimate:
    """Estimated values of all players.

    Attributes:
        values: Mean marginal contributions, ``(players,)``.
        standard_error: Of `values`; infinite while there is one sample.
        n_permutations: Permutations sampled.
        n_evaluations: Coalitions evaluated.
        whole: Value of all players together, mean over draws.
    """

    values: Float[ndarray, " players"]
    standard_error: Float[ndarray, " players"]
    n_permutations: int
    n_evaluations: int
    whole: float


def evaluations_of_a_sample(n_players: int, sampling: Sampling) -> int:
    """Return how many coalitions a sample takes at most: the whole once, then one per removal.

    Examples:
        >>> evaluations_of_a_sample(10, Sampling(antithetic=True))
        21
    """
    return 1 + (2 if sampling.antithetic else 1) * n_players


def sample_shapley_values(
    value_of: ValueOf,
    n_players: int,
    generator: np.random.Generator,
    sampling: Sampling,
    *,
    is_decided: Callable[[ShapleyEstimate], bool] = lambda _: False,
    max_evaluations: int | None = None,
) -> ShapleyEstimate:
    """Estimate Shapley values by removing players one at a time, in random orders.

    Each sample's contributions sum to v(all) − v(none) unless it was truncated, hence so do the
    estimates. The first sample is taken whatever it costs.

    Args:
        value_of: The game.
        n_players: Its players.
        generator: Draws the permutations.
        sampling: How they are drawn.
        is_decided: Asked after every sample whether the estimate is good enough.
        max_evaluations: No sample is begun that could exceed this many coalitions.
    """
    per_sample = 2 if sampling.antithetic else 1
    most = evaluations_of_a_sample(n_players, sampling)
    samples, wholes = _Running(), _Running()
    n_evaluations = 0
    while True:
        order = generator.permutation(n_players)
        orders = [order, order[::-1]] if sampling.antithetic else [order]
        gains, whole, n_spent = _walk(value_of, np.stack(orders), samples.n, sampling)
        samples.add(gains.mean(axis=0))
        wholes.add(np.array([whole]))
        n_evaluations += n_spent
        estimate = ShapleyEstimate(
            values=samples.mean.copy(),
            standard_error=samples.standard_error(),
            n_permutations=samples.n * per_sample,
            n_evaluations=n_evaluations,
            whole=float(wholes.mean[0]),
        )
        if (
            (samples.n + 1) * per_sample > sampling.max_permutations
            or is_decided(estimate)
            or (max_evaluations is not None and n_evaluations + most > max_evaluations)
        ):
            return estimate


class _Running:
    """Mean and standard error of vectors that come one by one (Welford)."""

    def __init__(self) -> None:
        self.n = 0
        self.mean: ndarray = np.zeros(1)
        self._squares: ndarray = np.zeros(1)

    def add(self, sample: ndarray) -> None:
        """Take up one more."""
        self.n += 1
        before = sample - self.mean
        self.mean = self.mean + before / self.n
        self._squares = self._squares + before * (sample - self.mean)

    def standard_error(self) -> ndarray:
        """Of the mean; infinite while there is one sample."""
        if self.n < 2:
            return np.full(self.mean.shape, np.inf)
        error: ndarray = np.sqrt(np.maximum(self._squares, 0.0) / (self.n - 1) / self.n)
        return error


def _walk(
    value_of: ValueOf, orders: Int[ndarray, "lanes players"], draw: int, sampling: Sampling
) -> tuple[Float[ndarray, "lanes players"], float, int]:
    """Walk down some permutations side by side; return gains, the whole's value, evaluations."""
    n_lanes, n_players = orders.shape
    gains = np.zeros((n_lanes, n_players))
    whole = float(value_of(np.ones((1, n_players), dtype=bool), draw)[0])
    n_spent = 1
    last = np.full(n_lanes, whole)
    walking = list(range(n_lanes))
    for positions in _chunks(n_players, sampling.chunk if sampling.truncation else n_players):
        coalitions = np.ones((len(walking), len(positions), n_players), dtype=bool)
        for place, lane in enumerate(walking):
            for column, position in enumerate(positions):
                coalitions[place, column, orders[lane, : position + 1]] = False
        values = value_of(coalitions.reshape(-1, n_players), draw).reshape(len(walking), -1)
        n_spent += values.size
        still_walking = []
        for lane, row in zip(walking, values, strict=True):
            is_over = False
            for position, value in zip(positions, row, strict=True):
                gains[lane, orders[lane, position]] = last[lane] - value
                last[lane] = value
                if sampling.truncation > 0 and value < sampling.truncation * whole:
                    is_over = True
                    break
            if not is_over:
                still_walking.append(lane)
        walking = still_walking
        if not walking:
            break
    return gains, whole, n_spent


def _chunks(n: int, size: int) -> Iterator[range]:
    for start in range(0, n, size):
        yield range(start, min(n, start + size))
