"""How well searches that differ in the seed alone agree on the cell (row 33, our choice).

Agreement means little without its value for chance, which depends on the number of cells and on
their shape; the table has both.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from numpy import ndarray
from scipy.stats import kendalltau
from statsmodels.stats.inter_rater import fleiss_kappa

from results.chance import N_DRAWS, N_INPUTS, UNKNOWN, CellShape, beside, cell_null, ranking_null
from results.liveness import ArmNames
from results.tables.cells import COUNT, P_VALUE, Missing, Number, NumberFormat
from results.tables.table import Column, Table, plain

MEASURES = ("jaccard", "kappa", "kendall_tau")
"""Columns of `agreement_table` that have a null."""
_COLUMNS = (
    *plain("dataset", "backbone", "arm"),
    Column(heading="cells", format=COUNT),
    *plain("Jaccard", "Fleiss κ", "Kendall τ", form=NumberFormat(spec=".2f")),
)
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
        1 for equal genotypes; NaN for fewer than two genotypes. Its value for chance is not 0,
        since only edges that some genotype chose are subjects and a node keeps two: four nodes
        and seven operations give -0.14 in the mean for two random genotypes, +0.03 for five,
        +0.06 for twenty. `results.chance.cell_null` has the distribution.
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
    importance in it: what was pruned first is last. ``none`` is left out: no genotype chooses it,
    and pruners keep it on purpose, so that all searches of a pruner would agree on its rank.

    Args:
        trajectories: Rows of the table of that name, of searches that differ in the seed.

    Returns:
        A number in [-1, 1]; NaN for fewer than two searches.
    """
    return _mean_tau(_rankings(trajectories))


def _rankings(trajectories: pd.DataFrame) -> list[pd.DataFrame]:
    """One ranking for each search."""
    return [_ranking(part) for _, part in trajectories.groupby("search_key", sort=True)]


def _mean_tau(rankings: Sequence[pd.DataFrame]) -> float:
    taus = []
    for first, second in combinations(rankings, 2):
        one, other = first.align(second, join="inner")
        for a, b in zip(one.to_numpy().T, other.to_numpy().T, strict=True):
            both = ~(np.isnan(a) | np.isnan(b))
            taus.append(float(kendalltau(a[both], b[both]).statistic))
    return _mean(tau for tau in taus if not np.isnan(tau))


def _ranking(trajectory: pd.DataFrame) -> pd.DataFrame:
    """Rank of every operation (rows) on every (level, edge) (columns); larger stayed longer."""
    is_ranked = trajectory["active"].astype(bool) & (trajectory["operation"] != "none")
    active = trajectory[is_ranked]
    last = active.sort_values("epoch").groupby(["level", "edge", "operation"]).tail(1)
    table = last.assign(
        place=last["epoch"].astype(float) + last["importance"].astype(float).clip(0, 1) / 2
    )
    return table.pivot(index="operation", columns=["level", "edge"], values="place")


def agreement_table(jobs: pd.DataFrame, trajectories: pd.DataFrame) -> pd.DataFrame:
    """Return a row per dataset, backbone and pruner with cells.

    A search that several jobs retrain counts once, and so does a cell that was given to several
    jobs without a search, such as a uniform one.

    Args:
        jobs: Finished jobs of one group of the report.
        trajectories: Of all searches.

    Returns:
        Columns ``dataset``, ``backbone``, ``pruner``, ``n`` (distinct searches or given cells),
        ``jaccard``, ``kappa``, ``kendall_tau`` (NaN where fewer than two are compared), and for
        each of the three the 2.5 % and 97.5 % quantiles under chance and a one-sided p, as
        ``jaccard_low``, ``jaccard_high``, ``jaccard_p`` and so on. Chance: as many random cells
        of the same levels and nodes, with the arm's candidate operations; for τ as many random
        rankings of each edge's operations as there are searches. NaN where the value is, or where
        the candidate operations are not recorded.
    """
    rows = []
    with_cells = jobs[jobs["genotype"].fillna("") != ""]
    for key, part in with_cells.groupby(["dataset", "backbone", "pruner"], sort=True):
        named = dict(zip(("dataset", "backbone", "pruner"), key, strict=True))
        rows.append({**named, **_agreement(_distinct_cells(part), trajectories)})
    names = ["dataset", "backbone", "pruner", "n", *MEASURES]
    names += [f"{name}_{part}" for name in MEASURES for part in ("low", "high", "p")]
    return pd.DataFrame(rows, columns=names)


def _agreement(jobs: pd.DataFrame, trajectories: pd.DataFrame) -> dict[str, float]:
    """The numbers of one arm, whose jobs have distinct searches."""
    genotypes = jobs["genotype"].astype(str).tolist()
    own = trajectories[trajectories["search_key"].isin(set(jobs["search_key"].dropna()))]
    rankings = _rankings(own)
    values = {
        "jaccard": mean_jaccard(genotypes),
        "kappa": operation_kappa(genotypes),
        "kendall_tau": _mean_tau(rankings),
    }
    nulls: dict[str, ndarray] = {}
    shape = _shape(genotypes, _candidates(jobs, own))
    if shape is not None:
        cells = cell_null(shape)
        nulls |= {"jaccard": cells.jaccard, "kappa": cells.kappa}
    if len(rankings) > 1:
        n_operations, n_edges = rankings[0].shape
        nulls["kendall_tau"] = ranking_null(len(rankings), n_edges, n_operations)
    row: dict[str, float] = {"n": len(genotypes), **values}
    for name in MEASURES:
        place = beside(nulls[name], values[name]) if name in nulls else UNKNOWN
        row |= {f"{name}_low": place.low, f"{name}_high": place.high, f"{name}_p": place.p}
    return row


def _distinct_cells(jobs: pd.DataFrame) -> pd.DataFrame:
    """One job for each search, and for each given cell that no search found."""
    ordered = jobs.sort_values("job_id")
    keys = ordered["search_key"].astype(object).where(ordered["search_key"].fillna("") != "")
    return ordered[~keys.fillna(ordered["genotype"]).duplicated()]


def _candidates(jobs: pd.DataFrame, trajectories: pd.DataFrame) -> frozenset[str]:
    """Operations that an arm could choose; empty if neither settings nor trajectories say."""
    for column in ("config_pruner_operations", "config_cell_operations"):
        said = set(jobs[column].dropna().astype(str)) - {""} if column in jobs else set()
        if said:
            return frozenset(name for text in said for name in text.split(",")) - {"none"}
    return frozenset(trajectories["operation"].dropna().astype(str)) - {"none"}


def _shape(genotypes: Sequence[str], candidates: frozenset[str]) -> CellShape | None:
    """What random cells share with these; None if there is no such shape."""
    read = [json.loads(genotype) for genotype in genotypes]
    shapes = {(one["n_nodes"], len(one["levels"])) for one in read}
    if len(read) < 2 or len(shapes) > 1 or not candidates:
        return None
    n_nodes = int(read[0]["n_nodes"])
    degrees = []
    for one in read:
        entered = [Counter(target for _, target, _ in edges) for edges in one["levels"]]
        degrees.append(tuple(each[N_INPUTS + node] for each in entered for node in range(n_nodes)))
    return CellShape(
        in_degrees=tuple(sorted(degrees)), n_nodes=n_nodes, n_operations=len(candidates)
    )


def agreement_section(table: pd.DataFrame, title: str, names: ArmNames) -> Table:
    """Return the report's table of agreement: a row per arm with two cells or more.

    Args:
        table: As `agreement_table` returns it.
        title: Settings that the group stands for, empty if there is one group.
        names: Names of the group's arms.
    """
    rows = tuple(
        (
            *(str(row[name]) for name in ("dataset", "backbone")),
            names.of(row["dataset"], row["backbone"], row["pruner"]),
            Number(int(row["n"])),
            *(_beside_chance(row, measure) for measure in MEASURES),
        )
        for _, row in table.iterrows()
        if int(row["n"]) > 1
    )
    return Table(
        title="Agreement over seeds" + (f" ({title})" if title else ""),
        caption="Mean pairwise Jaccard index of the chosen (edge, operation) sets, Fleiss' κ of "
        "the operation on each edge that any cell chose, mean Kendall τ of the final rankings of "
        "an edge's operations other than none. In brackets: the central 95 % of the values for "
        "chance, then p, the share of these that are as large or larger (one-sided, not corrected "
        f"for the number of lines). Chance: {N_DRAWS} draws of as many random cells, with the "
        "same levels and nodes and the arm's candidate operations; for τ, of a random ranking for "
        "every search and edge. The κ of random cells is not 0, since only chosen edges count.",
        columns=_COLUMNS,
        rows=rows,
    )


def _beside_chance(row: pd.Series, measure: str) -> Number | Missing:
    value, p = float(row[measure]), float(row[f"{measure}_p"])
    if np.isnan(value):
        return Missing("fewer than two are compared")
    if np.isnan(p):
        return Number(value)
    low, high = float(row[f"{measure}_low"]), float(row[f"{measure}_high"])
    return Number(value, detail=f"{low:.2f} to {high:.2f}; p {P_VALUE.text(p)}")


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return float(np.mean(listed)) if listed else float("nan")
