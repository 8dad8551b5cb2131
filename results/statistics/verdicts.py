"""What the data say of a declared claim.

All claims of a sweep are one family: their p values are corrected by Holm's method, and there is
no verdict on a pair that was not declared.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy import ndarray

from results.declared import ClaimKind
from results.statistics.intervals import Interval, student, student_above
from results.statistics.pairs import mean_over_patients, mean_per_patient

MARGIN = 0.01
"""Margin of ``not_inferior`` and ``equivalent``: one Dice point (row 40, our choice)."""
LEVEL = 0.05
MIN_SEARCHES = 5
"""Searches from which on there is a verdict."""
FEW_SEARCHES = 8
"""Searches below which the report says that they are few."""
MIN_PATIENTS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """An arm minus its reference, on the values that both have.

    Attributes:
        mean: Mean of the searches' mean paired differences.
        interval: Student's, over searches; over patients if there is one search.
        gaps: One mean difference per search, or per patient if there is one search.
        n_searches: Searches that both arms have.
        n_patients: Distinct patients.
        unpredicted: Classes that one of the arms predicts nowhere.
    """

    mean: float
    interval: Interval
    gaps: Float[ndarray, " units"]
    n_searches: int
    n_patients: int
    unpredicted: tuple[str, ...] = ()

    @property
    def is_of_patients(self) -> bool:
        """Whether there is one search only, so that patients are the unit."""
        return self.n_searches == 1

    @property
    def obstacle(self) -> str:
        """Why there can be no verdict; empty if there can."""
        if self.n_searches == 0:
            return "nothing in common"
        if self.n_patients < MIN_PATIENTS:
            return "too few patients"
        if self.unpredicted:
            return f"{', '.join(self.unpredicted)} predicted nowhere"
        if not self.is_of_patients and self.n_searches < MIN_SEARCHES:
            return "too few searches"
        return ""

    def p_of(self, kind: ClaimKind) -> float:
        """Return the uncorrected p of a claim; NaN where there can be no verdict."""
        if self.obstacle:
            return math.nan
        if kind == "different":
            return self.interval.p
        if kind == "better":
            return student_above(self.gaps, 0.0)
        below = student_above(self.gaps, -MARGIN)
        return below if kind == "not_inferior" else max(below, student_above(-self.gaps, -MARGIN))

    def verdict(self, kind: ClaimKind | None, p_holm: float) -> str:
        """Say what the data say of a claim.

        Args:
            kind: The declared claim; None if none was declared.
            p_holm: Its corrected p.
        """
        if self.obstacle:
            return self.obstacle
        if not np.any(self.gaps):
            return "the same in every value"
        if kind is None:
            return "not declared"
        is_shown = p_holm < LEVEL
        if self.is_of_patients:
            return "these two trained networks " + ("differ" if is_shown else "may be alike")
        if kind in ("different", "better") and abs(self.mean) < 0.5e-4:
            return "below 0.01 points"
        if not is_shown:
            return "not shown"
        if kind == "different":
            return "better" if self.mean > 0 else "worse"
        return kind.replace("_", " ")


def compare(pairs: pd.DataFrame, unpredicted: Sequence[str] = ()) -> Comparison:
    """Compare two arms.

    Args:
        pairs: As `results.statistics.pairs.paired` returns them.
        unpredicted: Classes that one of the arms predicts nowhere.
    """
    gaps = mean_over_patients(pairs).to_numpy(dtype=float)
    n_searches = len(gaps)
    mean = float(gaps.mean()) if n_searches else math.nan
    if n_searches == 1:
        gaps = mean_per_patient(pairs).to_numpy(dtype=float)
    return Comparison(
        mean=mean,
        interval=student(gaps),
        gaps=gaps,
        n_searches=n_searches,
        n_patients=int(pairs["patient_id"].nunique()),
        unpredicted=tuple(unpredicted),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values corrected by Holm's method; NaN stay and do not count.

    Examples:
        >>> holm([0.01, float("nan"), 0.04])
        [0.02, nan, 0.04]
    """
    # Not statsmodels' multipletests, which collects garbage at every call (70 ms).
    found = np.array(p_values, dtype=float)
    order = np.argsort(found)[: int((~np.isnan(found)).sum())]
    steps = found[order] * np.arange(len(order), 0, -1)
    found[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(p) for p in found]
