"""Variance components of a balanced two-way table with one value per row and column.

The model is value = mean + row + column + residual, all three drawn independently from normal
distributions. An interaction of row and column cannot be told from the residual.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import fdtri

_N_DRAWS = 100_000
_ROUNDING = 1e-12
"""Residuals smaller than this share of the largest value are rounding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoWayAnova:
    """Mean squares of a table, and the variances that follow from their expectations.

    Attributes:
        n_rows: Rows, for example genotypes.
        n_columns: Columns, for example retraining seeds.
        row_mean_square: Expectation: residual variance + columns × row variance.
        column_mean_square: Expectation: residual variance + rows × column variance.
        residual_mean_square: Expectation: residual variance.
    """

    n_rows: int
    n_columns: int
    row_mean_square: float
    column_mean_square: float
    residual_mean_square: float

    @property
    def residual_df(self) -> int:
        """Degrees of freedom of the residual."""
        return (self.n_rows - 1) * (self.n_columns - 1)

    @property
    def row_variance(self) -> float:
        """Variance of rows; 0 where the estimate is negative."""
        return max(0.0, (self.row_mean_square - self.residual_mean_square) / self.n_columns)

    @property
    def column_variance(self) -> float:
        """Variance of columns; 0 where the estimate is negative."""
        return max(0.0, (self.column_mean_square - self.residual_mean_square) / self.n_rows)

    @property
    def residual_variance(self) -> float:
        """Variance of the residual."""
        return self.residual_mean_square


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Shares of the total variance of one value, which add up to 1."""

    row: Estimate
    column: Estimate
    residual: Estimate


def two_way_anova(values: np.ndarray) -> TwoWayAnova:
    """Return the mean squares of a table without replication.

    Args:
        values: Shape ``(rows, columns)``, at least two of each, none missing.

    Raises:
        ValueError: If the table is smaller, a value is missing, or nothing is left as residual.

    Examples:
        >>> found = two_way_anova(np.array([[1.0, 2.0], [3.0, 5.0]]))
        >>> found.row_mean_square, found.column_mean_square, found.residual_mean_square
        (6.25, 2.25, 0.25)
    """
    if values.ndim != 2 or min(values.shape) < 2:
        raise ValueError(f"a table must have two rows and two columns, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("a balanced table must have every value; leave out incomplete rows")
    n_rows, n_columns = values.shape
    rows = values.mean(axis=1, keepdims=True)
    columns = values.mean(axis=0, keepdims=True)
    residual = values - rows - columns + values.mean()
    found = TwoWayAnova(
        n_rows=n_rows,
        n_columns=n_columns,
        row_mean_square=float(n_columns * rows.var(ddof=1)),
        column_mean_square=float(n_rows * columns.var(ddof=1)),
        residual_mean_square=float((residual**2).sum() / ((n_rows - 1) * (n_columns - 1))),
    )
    if found.residual_mean_square <= (_ROUNDING * np.abs(values).max()) ** 2:
        raise ValueError("rows and columns must leave a residual, got none; values repeat")
    return found


def row_ratio(anova: TwoWayAnova, level: float = 0.95) -> Estimate:
    """Return row variance over residual variance with its exact F-interval.

    The row mean square over the residual one is (1 + columns × ratio) times a variable with an F
    distribution, so that its quantiles bound the ratio (McGraw and Wong 1996, ICC(C,k)). Negative
    bounds are 0.

    Args:
        anova: The table's mean squares.
        level: Coverage of the interval.
    """
    return _ratio(anova.row_mean_square, anova, anova.n_rows, anova.n_columns, level)


def column_ratio(anova: TwoWayAnova, level: float = 0.95) -> Estimate:
    """Return column variance over residual variance with its exact F-interval; see `row_ratio`."""
    return _ratio(anova.column_mean_square, anova, anova.n_columns, anova.n_rows, level)


def _ratio(
    mean_square: float, anova: TwoWayAnova, n_levels: int, n_each: int, level: float
) -> Estimate:
    observed = mean_square / anova.residual_mean_square
    tail = (1 - level) / 2
    upper, lower = fdtri(n_levels - 1, anova.residual_df, [1 - tail, tail])
    bounds = (1.0, float(upper), float(lower))
    value, low, high = (max(0.0, (observed / bound - 1) / n_each) for bound in bounds)
    return Estimate(value=value, low=low, high=high)


def share_of_pair(ratio: Estimate) -> Estimate:
    """Return variance / (variance + residual variance); the interval stays exact.

    Args:
        ratio: That variance over the residual variance, by `row_ratio` or `column_ratio`.
    """
    return reliability(ratio, 1)


def reliability(ratio: Estimate, n: int) -> Estimate:
    """Return the reliability of a row's mean over n columns: ICC(C,n) of McGraw and Wong (1996).

    It is row variance / (row variance + residual variance / n): the squared correlation of the
    mean with the row's true value. Columns that all rows share cancel in comparisons of rows.

    Args:
        ratio: Row variance over residual variance, by `row_ratio`.
        n: Columns that the mean is taken over.

    Examples:
        >>> reliability(Estimate(value=1.0, low=0.0, high=3.0), 3).value
        0.75
    """

    def share(theta: float) -> float:
        return n * theta / (1 + n * theta)

    return Estimate(value=share(ratio.value), low=share(ratio.low), high=share(ratio.high))


def variance_shares(
    anova: TwoWayAnova, *, level: float = 0.95, n_draws: int = _N_DRAWS, seed: int = 0
) -> Shares:
    """Return the shares of rows, columns and residual in the total variance.

    No exact interval is known for a share of three components. These are generalised confidence
    intervals (Weerahandi 1993): every mean square is divided by a draw of its chi-squared law, and
    the quantiles of the shares that follow are the bounds. For two components the same recipe
    gives the exact F-interval of `share_of_pair`.

    Args:
        anova: The table's mean squares.
        level: Coverage of the intervals.
        n_draws: Draws of every mean square.
        seed: Of the draws.
    """
    generator = np.random.default_rng(seed)

    def pivots(mean_square: float, df: int) -> np.ndarray:
        drawn: np.ndarray = df * mean_square / generator.chisquare(df, n_draws)
        return drawn

    residual = pivots(anova.residual_mean_square, anova.residual_df)
    rows = pivots(anova.row_mean_square, anova.n_rows - 1)
    columns = pivots(anova.column_mean_square, anova.n_columns - 1)
    drawn = np.stack(
        [
            np.maximum(0, (rows - residual) / anova.n_columns),
            np.maximum(0, (columns - residual) / anova.n_rows),
            residual,
        ]
    )
    tail = (1 - level) / 2
    bounds = np.quantile(drawn / drawn.sum(axis=0), [tail, 1 - tail], axis=1)
    values = np.array([anova.row_variance, anova.column_variance, anova.residual_variance])
    row, column, rest = (
        Estimate(value=float(value), low=float(low), high=float(high))
        for value, low, high in zip(values / values.sum(), *bounds, strict=True)
    )
    return Shares(row=row, column=column, residual=rest)
