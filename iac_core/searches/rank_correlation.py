"""Whether two scores rank candidates alike."""

import math


def rank_correlation(first: list[float], second: list[float]) -> tuple[float, float]:
    """Return Spearman's rank correlation and its one-sided p-value.

    Args:
        first: A score of each candidate.
        second: Another score of each.

    Returns:
        The correlation and the probability of one as large without any dependence; (NaN, 1) with
        fewer than three candidates or where one score is constant.

    Examples:
        >>> round(rank_correlation([1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 4.0])[0], 3)
        0.8
    """
    from scipy.stats import spearmanr  # heavy: loaded where used

    if len(first) < 3 or len(set(first)) < 2 or len(set(second)) < 2:
        return math.nan, 1.0
    found = spearmanr(first, second, alternative="greater")
    return float(found.statistic), float(found.pvalue)
