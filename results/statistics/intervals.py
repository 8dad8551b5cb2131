"""Intervals and tests for a mean difference when the unit is the search.

The primary ones are Student's: one mean paired difference per search, so that everything that a
search's patients share (its genotype, its retraining, its split) counts once. The others stand
beside them and decide nothing.
"""

import math
import warnings
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy import ndarray
from scipy import stats

from results.statistics.pairs import SEARCH, mean_per_patient

_N_RESAMPLES = 9999
_MOST_EXACT = 16
_SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A 95 % interval and a two-sided p for a mean of zero; NaN where they are not defined."""

    low: float
    high: float
    p: float


UNDEFINED = Interval(low=math.nan, high=math.nan, p=math.nan)


def student(gaps: Float[ndarray, " searches"], variance_factor: float = 1.0) -> Interval:
    """Return Student's interval and test of the mean.

    Args:
        gaps: One mean difference per search.
        variance_factor: Factor on the variance of the mean.

    Returns:
        Undefined for fewer than two searches. If all gaps are equal, the interval is that point
        and p is the sign-flip test's, since a deviation of zero says nothing about noise.
    """
    n = len(gaps)
    if n < 2:
        return UNDEFINED
    if np.ptp(gaps) == 0:
        return Interval(low=float(gaps[0]), high=float(gaps[0]), p=sign_flip(gaps))
    mean = float(np.mean(gaps))
    error = float(np.std(gaps, ddof=1)) * math.sqrt(variance_factor / n)
    half = float(stats.t.ppf(0.975, n - 1)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, n - 1))
    return Interval(low=mean - half, high=mean + half, p=p)


def student_above(gaps: Float[ndarray, " searches"], bound: float) -> float:
    """Return the one-sided p of Student's test that the mean is above a bound.

    Returns:
        NaN for fewer than two searches. If all gaps are equal, 2⁻ⁿ above the bound, else 1.
    """
    n = len(gaps)
    if n < 2:
        return math.nan
    mean = float(np.mean(gaps))
    if np.ptp(gaps) == 0:
        return 2.0**-n if mean > bound else 1.0
    error = float(np.std(gaps, ddof=1)) / math.sqrt(n)
    return float(stats.t.sf((mean - bound) / error, n - 1))


def sign_flip(gaps: Float[ndarray, " searches"]) -> float:
    """Return the two-sided p of the sign-flip test of the mean.

    Exact up to 16 searches, by 9,999 random flips above. Its smallest possible value is
    `smallest_sign_flip`.
    """
    n = len(gaps)
    if n == 0:
        return math.nan
    observed = abs(float(np.sum(gaps)))
    tolerance = 1e-12 * float(np.abs(gaps).sum())
    if n <= _MOST_EXACT:
        signs = np.array(list(product((1.0, -1.0), repeat=n)))
        return float(np.mean(np.abs(signs @ gaps) >= observed - tolerance))
    signs = np.random.default_rng(_SEED).choice((1.0, -1.0), size=(_N_RESAMPLES, n))
    n_as_large = int(np.sum(np.abs(signs @ gaps) >= observed - tolerance))
    return (1 + n_as_large) / (1 + _N_RESAMPLES)


def smallest_sign_flip(n_searches: int) -> float:
    """Return the smallest p that a sign-flip test of so many searches can have.

    Examples:
        >>> smallest_sign_flip(5)
        0.0625
    """
    return 2.0 ** (1 - n_searches) if n_searches <= _MOST_EXACT else 1 / (1 + _N_RESAMPLES)


def bca(gaps: Float[ndarray, " searches"]) -> Interval:
    """Return the bias-corrected and accelerated bootstrap interval over searches; no p."""
    if len(gaps) < 2 or np.ptp(gaps) == 0:
        return UNDEFINED
    with warnings.catch_warnings():
        # Few searches can make a resample degenerate; the interval is then undefined.
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = stats.bootstrap(
            (gaps,), np.mean, n_resamples=_N_RESAMPLES, rng=np.random.default_rng(_SEED)
        ).confidence_interval
    return Interval(low=float(found.low), high=float(found.high), p=math.nan)


def hierarchical_bootstrap(pairs: pd.DataFrame) -> Interval:
    """Return the percentile interval of a bootstrap of searches, then of their patients; no p.

    Args:
        pairs: As `results.statistics.pairs.paired` returns them.
    """
    per_patient = mean_per_patient(pairs)
    groups = [part.to_numpy(dtype=float) for _, part in per_patient.groupby(SEARCH, sort=True)]
    if len(groups) < 2:
        return UNDEFINED
    generator = np.random.default_rng(_SEED)
    chosen = generator.integers(len(groups), size=(_N_RESAMPLES, len(groups)))
    drawn = np.empty(chosen.shape)
    for index, group in enumerate(groups):
        places = np.nonzero(chosen == index)
        picks = generator.integers(len(group), size=(len(places[0]), len(group)))
        drawn[places] = group[picks].mean(axis=1)
    low, high = np.percentile(drawn.mean(axis=1), (2.5, 97.5))
    return Interval(low=float(low), high=float(high), p=math.nan)


def nadeau_bengio(gaps: Float[ndarray, " searches"], n_train: float, n_test: float) -> Interval:
    """Return the corrected t of Nadeau and Bengio (2003) for searches whose training sets overlap.

    The variance of the mean is s² (1/n + n_test / n_train).

    Args:
        gaps: One mean difference per search.
        n_train: Training patients of a search.
        n_test: Scored patients of a search.
    """
    if n_train <= 0:
        return UNDEFINED
    return student(gaps, variance_factor=1 + len(gaps) * n_test / n_train)


def mixed_model(pairs: pd.DataFrame) -> Interval:
    """Return interval and p of the mean in gap ~ 1 + (1 | search) + (1 | patient), by REML.

    The patient's term is left out where every patient belongs to one search, as over the folds of
    a split: it would be the residual. Interval and p are Wald's.

    Args:
        pairs: As `results.statistics.pairs.paired` returns them.

    Returns:
        Undefined for fewer than three searches, or where the fit does not converge.
    """
    from statsmodels.regression.mixed_linear_model import MixedLM

    frame = mean_per_patient(pairs).rename("gap").reset_index()
    scale = float(frame["gap"].std(ddof=1)) if len(frame) > 1 else 0.0
    if frame[SEARCH].nunique() < 3 or scale == 0:
        return UNDEFINED
    frame["gap"] /= scale
    if frame["patient_id"].duplicated().any():
        # Patients cross searches: both are variance components of one group that holds all.
        terms = {"search": f"0 + C({SEARCH})", "patient": "0 + C(patient_id)"}
        whole = np.ones(len(frame))
        model = MixedLM.from_formula(
            "gap ~ 1", frame, groups=whole, re_formula="0", vc_formula=terms
        )
    else:
        model = MixedLM.from_formula("gap ~ 1", frame, groups=SEARCH)
    with warnings.catch_warnings():
        # It warns where a component is zero, which is an answer, and where it tries again.
        warnings.simplefilter("ignore")
        try:
            fit = model.fit(reml=True, method=["bfgs", "lbfgs", "cg", "powell"])
        except np.linalg.LinAlgError:
            return UNDEFINED
    mean, error = scale * float(fit.fe_params.iloc[0]), scale * float(fit.bse_fe.iloc[0])
    if not (fit.converged and error > 0):
        return UNDEFINED
    half = float(stats.norm.ppf(0.975)) * error
    p = float(2 * stats.norm.sf(abs(mean) / error))
    return Interval(low=mean - half, high=mean + half, p=p)
