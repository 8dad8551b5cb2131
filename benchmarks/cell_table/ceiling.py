"""How high a perfect search can stand in a table whose numbers are noisy."""

from dataclasses import dataclass

import numpy as np

_N_DRAWS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """Percentiles, 0 to 100, among the other cells of a table.

    Attributes:
        judged: Expected percentile, by noisy means, of the cell whose true value is the highest.
            Found cells stand in a table by their noisy means, so this is what a perfect search
            can be expected to reach, and what the percentile of found cells is held against.
        judged_median: Median of the same.
        chosen: Expected true percentile of the cell whose noisy mean is the highest: what whoever
            takes the best of the table gets. For normal values it is `judged` again, since mean
            and true value have the same joint distribution the other way round.
    """

    judged: float
    judged_median: float
    chosen: float


def ceiling(
    reliability: float, n_cells: int, *, n_draws: int = _N_DRAWS, seed: int = 0
) -> Ceiling:
    """Return how high a perfect search can be expected to stand, by simulation.

    True values and noise are normal, in tables of as many cells as the real one; the perfect
    search finds the best of them. 50 at reliability 0, 100 at reliability 1.

    Args:
        reliability: Share of the variance of a cell's mean that is the cell's own, 0 to 1.
        n_cells: Cells of the table.
        n_draws: Simulated tables.
        seed: Of the draws.

    Examples:
        >>> ceiling(1.0, 10, n_draws=5).judged
        100.0
    """
    generator = np.random.default_rng(seed)
    true = generator.standard_normal((n_draws, n_cells))
    noise = generator.standard_normal((n_draws, n_cells))
    means = np.sqrt(reliability) * true + np.sqrt(1 - reliability) * noise
    judged = _percentiles_of(true.argmax(axis=1), means)
    chosen = _percentiles_of(means.argmax(axis=1), true)
    return Ceiling(
        judged=float(judged.mean()),
        judged_median=float(np.median(judged)),
        chosen=float(chosen.mean()),
    )


def _percentiles_of(picked: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Percentile of one picked cell of every table among its other cells."""
    own = np.take_along_axis(values, picked[:, None], axis=1)
    found: np.ndarray = 100 * (values < own).sum(axis=1) / (values.shape[1] - 1)
    return found
