"""Friedman's test over several arms: are any of them different at all?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from results.statistics.pairs import by_search


@dataclass(frozen=True, slots=True, kw_only=True)
class Friedman:
    """Friedman's test; blocks are the searches that all arms have.

    Attributes:
        arms: The arms.
        mean_ranks: Mean rank of each, 1 is the best.
        n_blocks: Searches.
        statistic: Chi-squared with one degree of freedom less than arms; NaN with fewer than
            three arms or two blocks.
        p: Its p.
    """

    arms: tuple[str, ...]
    mean_ranks: tuple[float, ...]
    n_blocks: int
    statistic: float
    p: float


def friedman(values: pd.DataFrame, arms: Sequence[str]) -> Friedman:
    """Test several arms on the values that all of them have.

    Args:
        values: As `results.statistics.pairs.scored` returns them.
        arms: Values of the pruner axis.
    """
    searches, scores = by_search(values, arms)
    ranks = stats.rankdata(-scores, axis=1).mean(axis=0) if len(searches) else ()
    statistic = p = math.nan
    if len(arms) >= 3 and len(searches) >= 2 and np.ptp(scores, axis=1).any():
        found = stats.friedmanchisquare(*scores.T)
        statistic, p = float(found.statistic), float(found.pvalue)
    return Friedman(
        arms=tuple(arms),
        mean_ranks=tuple(float(rank) for rank in ranks),
        n_blocks=len(searches),
        statistic=statistic,
        p=p,
    )
