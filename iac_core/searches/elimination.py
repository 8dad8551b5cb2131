"""Which operations the losses of sampled paths speak against, by regression.

The loss of a training step is taken as a sum of one effect for each (edge, operation) pair on its
path, plus a trend and noise. An operation whose effect is worse than that of its edge's best one
by more than noise gives is eliminated.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from iac_core.pruners.evidence import evidence_bound, is_look

_PRIOR = 1.0
"""Ridge: the prior of an effect is as wide as the noise of one step. It shrinks what was seen a
few times towards 0 and makes the evidence against it smaller than without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Elimination:
    """An operation that goes.

    Attributes:
        level: Architecture, 0 if the levels share one.
        edge: Edge.
        operation: Column of the operation.
        evidence: Its effect less that of the edge's best operation, over the deviation of the
            difference.
        bound: What it exceeds.
    """

    level: int
    edge: int
    operation: int
    evidence: float
    bound: float


def looks_until(n_steps: int) -> list[int]:
    """Return the numbers of steps after which operations are tested: 8, 16, 32, … up to n_steps.

    Examples:
        >>> looks_until(100)
        [8, 16, 32, 64]
    """
    return [step for step in range(1, n_steps + 1) if is_look(step)]


def detrended(losses: Float[ndarray, " n"], window: int) -> Float[ndarray, " n"]:
    """Return losses less the mean of the `window` nearest of them, itself included.

    At the ends the window holds the same number of losses and is not centred.

    Args:
        losses: Of consecutive steps.
        window: Losses in a mean, at least 1; all of them if there are fewer.

    Examples:
        >>> detrended(np.array([3.0, 2.0, 1.0]), 3).tolist()
        [1.0, 0.0, -1.0]
    """
    n = len(losses)
    width = min(window, n)
    sums = np.concatenate([[0.0], np.cumsum(losses)])
    starts = np.clip(np.arange(n) - width // 2, 0, n - width)
    found: ndarray = losses - (sums[starts + width] - sums[starts]) / width
    return found


def evidence_against(
    paths: Bool[ndarray, "n levels edges ops"],
    losses: Float[ndarray, " n"],
    allowed: Bool[ndarray, "levels edges ops"],
    *,
    window: int,
) -> Float[ndarray, "levels edges ops"]:
    """Return the evidence against every operation, of its edge's best one.

    A Bayesian linear regression with a normal prior: the evidence is the mean of the difference
    of two effects over its posterior deviation. The noise is estimated from the residuals, with
    the effective number of coefficients taken off, and the evidence is put on the scale of a
    standard normal variable (the same tail probability), so that few steps are no stronger
    evidence than they should be.

    Args:
        paths: The pairs that each step's path has.
        losses: Of the steps; lower is better.
        allowed: Pairs still in the space.
        window: Of the running mean that is taken off the losses.

    Returns:
        At least 0; NaN where a pair is not allowed, or has too few steps for a noise estimate.
    """
    from scipy.stats import norm, t  # heavy: loaded where used

    found = np.full(allowed.shape, np.nan)
    design = paths.reshape(len(paths), -1).astype(np.float64)
    seen = design.any(axis=0)
    x = design[:, seen]
    x = x - x.mean(axis=0)
    y = detrended(losses, window)
    y = y - y.mean()
    inverse = np.linalg.inv(x.T @ x + _PRIOR * np.eye(x.shape[1]))
    effects = np.zeros(design.shape[1])
    effects[seen] = inverse @ x.T @ y
    freedom = len(y) - 1 - float(np.einsum("ij,ji->", inverse, x.T @ x))
    if freedom < 1:
        return found
    residuals = y - x @ effects[seen]
    noise = float(residuals @ residuals) / freedom
    covariance = np.eye(design.shape[1]) / _PRIOR
    covariance[np.ix_(seen, seen)] = inverse
    index = np.arange(design.shape[1]).reshape(allowed.shape)
    for level, edge in np.ndindex(allowed.shape[:2]):
        columns = index[level, edge][allowed[level, edge]]
        if not len(columns):
            continue
        best = columns[np.argmin(effects[columns])]
        spread = covariance[columns, columns] + covariance[best, best]
        spread = noise * np.maximum(spread - 2 * covariance[columns, best], 0.0)
        difference = effects[columns] - effects[best]
        ratio = np.divide(
            difference, np.sqrt(spread), out=np.zeros_like(difference), where=spread > 0
        )
        found[level, edge][allowed[level, edge]] = norm.isf(t.sf(ratio, freedom))
    return found


def eliminations(
    paths: Bool[ndarray, "n levels edges ops"],
    losses: Float[ndarray, " n"],
    allowed: Bool[ndarray, "levels edges ops"],
    *,
    n_looks: int,
    window: int = 32,
    error: float = 0.05,
) -> list[Elimination]:
    """Return the operations that go at a look; an edge keeps its best one.

    Args:
        paths: The pairs that each step's path has.
        losses: Of the steps; lower is better.
        allowed: Pairs still in the space.
        n_looks: Looks of the whole training.
        window: Of the running mean that is taken off the losses.
        error: Probability that anything goes if losses are pure noise.
    """
    n_edges = int(allowed.any(axis=-1).sum())
    bound = evidence_bound(n_edges, allowed.shape[-1], n_looks, error)
    evidence = evidence_against(paths, losses, allowed, window=window)
    return [
        Elimination(
            level=int(level),
            edge=int(edge),
            operation=int(operation),
            evidence=float(evidence[level, edge, operation]),
            bound=bound,
        )
        for level, edge, operation in np.argwhere(np.nan_to_num(evidence, nan=0.0) > bound)
    ]
