"""How well searches that differ in the seed alone agree on the cell (row 33, our choice)."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import kendalltau
from statsmodels.stats.inter_rater import fleiss_kappa

_NOT_CHOSEN = "not chosen"

Choices = dict[tuple[int, int, int], str]
"""``(level, source, target)`` → the operation chosen there."""


def choices(genotype: str) -> Choices:
    """Return what a genotype's JSON chooses.

    Examples:
        >>> choices('{"n_nodes":1,"levels":[[[0,2,"skip_connect"]]]}')
        {(0, 0, 2): 'skip_connect'}
    """
    levels = json.loads(genotype)["levels"]
    return {
        (level, source, target): operation
        for level, edges in enumerate(levels)
        for source, target, operation in edges
    }


def mean_jaccard(genotypes: Sequence[str]) -> float:
    """Return the mean over pairs of |A ∩ B| / |A ∪ B| of the chosen (edge, operation) sets.

    Returns:
        A number in [0, 1]; NaN for fewer than two genotypes.
    """
    sets = [set(choices(genotype).items()) for genotype in genotypes]
    return _mean(len(a & b) / len(a | b) for a, b in combinations(sets, 2))


def operation_kappa(genotypes: Sequence[str]) -> float:
    """Return Fleiss' κ of the operation on each edge, "not chosen" being a category of its own.

    Genotypes are the raters and the edges that any of them chose the subjects.

    Returns:
        1 for equal genotypes, about 0 for chance; NaN for fewer than two genotypes.
    """
    if len(genotypes) < 2:
        return float("nan")
    found = [choices(genotype) for genotype in genotypes]
    edges = sorted({edge for each in found for edge in each})
    votes = [Counter(each.get(edge, _NOT_CHOSEN) for each in found) for edge in edges]
    categories = sorted({name for vote in votes for name in vote})
    table = np.array([[vote[name] for name in categories] for vote in votes])
    if len(categories) == 1:
        return 1.0
    return float(fleiss_kappa(table))


def mean_kendall_tau(trajectories: pd.DataFrame) -> float:
    """Return the mean over pairs of searches and over edges of Kendall's τ of final rankings.

    An edge ranks its operations by the last epoch in which they were in the graph, then by their
    importance in it: what was pruned first is last.

    Args:
        trajectories: Rows of the table of that name, of searches that differ in the seed.

    Returns:
        A number in [-1, 1]; NaN for fewer than two searches.
    """
    rankings = [_ranking(part) for _, part in trajectories.groupby("search_key", sort=True)]
    taus = []
    for first, second in combinations(rankings, 2):
        for edge in first.columns.intersection(second.columns):
            both = pd.concat([first[edge], second[edge]], axis=1).dropna()
            taus.append(float(kendalltau(both.iloc[:, 0], both.iloc[:, 1]).statistic))
    return _mean(tau for tau in taus if not np.isnan(tau))


def _ranking(trajectory: pd.DataFrame) -> pd.DataFrame:
    """Rank of every operation (rows) on every (level, edge) (columns); larger stayed longer."""
    active = trajectory[trajectory["active"].astype(bool)]
    last = active.sort_values("epoch").groupby(["level", "edge", "operation"]).tail(1)
    table = last.assign(
        place=last["epoch"].astype(float) + last["importance"].astype(float).clip(0, 1) / 2
    )
    return table.pivot(index="operation", columns=["level", "edge"], values="place")


def agreement_table(jobs: pd.DataFrame, trajectories: pd.DataFrame) -> pd.DataFrame:
    """Return a row per dataset, backbone and pruner with cells.

    Args:
        jobs: Finished jobs of one group of the report.
        trajectories: Of all searches.

    Returns:
        Columns ``dataset``, ``backbone``, ``pruner``, ``n``, ``jaccard``, ``kappa``,
        ``kendall_tau`` (NaN where nothing was searched).
    """
    rows = []
    with_cells = jobs[jobs["genotype"].fillna("") != ""]
    for key, part in with_cells.groupby(["dataset", "backbone", "pruner"], sort=True):
        genotypes = part.sort_values("job_id")["genotype"].tolist()
        own = trajectories[trajectories["search_key"].isin(set(part["search_key"].dropna()))]
        rows.append(
            {
                **dict(zip(("dataset", "backbone", "pruner"), key, strict=True)),
                "n": len(genotypes),
                "jaccard": mean_jaccard(genotypes),
                "kappa": operation_kappa(genotypes),
                "kendall_tau": mean_kendall_tau(own) if len(own) else float("nan"),
            }
        )
    names = ["dataset", "backbone", "pruner", "n", "jaccard", "kappa", "kendall_tau"]
    return pd.DataFrame(rows, columns=names)


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return float(np.mean(listed)) if listed else float("nan")
