"""How early a search's final operations lead: the observation that IAC-LTH rests on.

A final operation is one that the genotype chose on its edge. It leads at an epoch if its
importance is among the three largest of its edge. ``none`` takes no place in this order, since the
choice leaves it out too. An operation that is gone does not lead.
"""

import json
from collections.abc import Hashable, Iterator, Mapping
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from results.liveness import ArmNames
from results.tables.cells import COUNT, Cell, Missing, Number
from results.tables.table import Row, Table, plain

N_LEADING = 3
"""Places at the top of an edge (paper B: survivors are in the top 3 by about epoch 45)."""
EPOCHS = (0, 5, 10, 15, 30, 45, 60, 100, 150)
"""Epochs of the table, which has the last epoch of each search beside them."""
LAST = -1
"""Stands for the last epoch of each search in the column ``epoch`` of the table."""
_ARM = ["dataset", "backbone", "pruner"]
_NOT_REACHED = Missing("no search of the arm reached this epoch")
_EDGE = ["job_id", "level", "source", "target"]


def leading_shares(jobs: pd.DataFrame, trajectories: pd.DataFrame) -> pd.DataFrame:
    """Return for every search and epoch the share of final operations that lead.

    With ``g`` active operations of larger importance and ``t`` of the same (itself among them), an
    operation counts ``(3 - g) / t``, at least 0 and at most 1: equal operations share the places
    that are left. By chance, the final operation being any of the ``m`` operations that are still
    active on its edge, it would count ``min(3, m) / m``: 3 of 7 until one of seven is removed, and
    1 once three or fewer are left, where the removals and not the importance say who leads.

    Args:
        jobs: Finished jobs of one group of the report.
        trajectories: Of all searches.

    Returns:
        Columns ``dataset``, ``backbone``, ``pruner``, ``job_id``, ``epoch``, ``share``,
        ``chance``; one job for each search of an arm. Searches that recorded no trajectory are
        left out, and so are chosen edges that a trajectory does not have.
    """
    searches = _distinct_searches(jobs)
    final = pd.DataFrame(
        chain.from_iterable(map(_final_operations, searches["job_id"], searches["genotype"])),
        columns=[*_EDGE, "final"],
    )
    own = trajectories[trajectories["job_id"].isin(set(searches["job_id"]))]
    own = own.assign(counts=own["active"].astype(bool) & (own["operation"] != "none"))
    names = [*_EDGE, "epoch", "operation", "importance", "counts"]
    rows = own[names].astype({"level": int, "source": int, "target": int, "importance": float})
    per_edge = _leads(rows.merge(final, on=_EDGE))
    shares = per_edge.groupby(["job_id", "epoch"])[["share", "chance"]].mean().reset_index()
    return searches[[*_ARM, "job_id"]].merge(shares, on="job_id")


def early_decision_table(jobs: pd.DataFrame, trajectories: pd.DataFrame) -> pd.DataFrame:
    """Return a row per arm with searches and epoch of `EPOCHS`, and one for the last epochs.

    Args:
        jobs: Finished jobs of one group of the report.
        trajectories: Of all searches.

    Returns:
        Columns ``dataset``, ``backbone``, ``pruner``, ``n_searches``, ``epoch`` (`LAST` for the
        last one of each search), ``n`` (searches that reached the epoch), ``share`` and ``chance``
        (their means). An epoch that no search of the arm reached has no row.
    """
    shares = leading_shares(jobs, trajectories)
    is_last = shares["epoch"] == shares.groupby([*_ARM, "job_id"])["epoch"].transform("max")
    shown = pd.concat([shares[shares["epoch"].isin(EPOCHS)], shares[is_last].assign(epoch=LAST)])
    table = (
        shown.groupby([*_ARM, "epoch"])
        .agg(n=("job_id", "size"), share=("share", "mean"), chance=("chance", "mean"))
        .reset_index()
    )
    n_searches = shares.groupby(_ARM)["job_id"].nunique().rename("n_searches").reset_index()
    names = [*_ARM, "n_searches", "epoch", "n", "share", "chance"]
    return n_searches.merge(table, on=_ARM)[names]


def early_decision_curves(jobs: pd.DataFrame, trajectories: pd.DataFrame) -> pd.DataFrame:
    """Return the means over an arm's searches for every epoch that all of them reached.

    Args:
        jobs: Finished jobs of one group of the report.
        trajectories: Of all searches.

    Returns:
        Columns ``dataset``, ``backbone``, ``pruner``, ``epoch``, ``share``, ``chance``.
    """
    shares = leading_shares(jobs, trajectories)
    n_searches = shares.groupby(_ARM)["job_id"].transform("nunique")
    reached = shares.groupby([*_ARM, "epoch"])["job_id"].transform("size")
    whole = shares[reached == n_searches]
    return whole.groupby([*_ARM, "epoch"])[["share", "chance"]].mean().reset_index()


def early_decision_section(jobs: pd.DataFrame, trajectories: pd.DataFrame, title: str) -> Table:
    """Return the report's table of the shares: a row per arm with searches, a column per epoch.

    Args:
        jobs: Finished jobs of one group of the report.
        trajectories: Of all searches.
        title: Settings that the group stands for, empty if there is one group.
    """
    names, table = ArmNames(jobs), early_decision_table(jobs, trajectories)
    epochs = [epoch for epoch in (*EPOCHS, LAST) if (table["epoch"] == epoch).any()]
    rows: list[Row] = []
    for key, part in table.groupby(_ARM, sort=True):
        dataset, backbone, pruner = key
        by_epoch = {row["epoch"]: row for row in part.to_dict("records")}
        shown = (_shown(by_epoch[x]) if x in by_epoch else _NOT_REACHED for x in epochs)
        n_searches = Number(part["n_searches"].iloc[0])
        arm = names.of(dataset, backbone, pruner)
        rows.append((str(dataset), str(backbone), arm, n_searches, *shown))
    headings = ("last" if epoch == LAST else str(epoch) for epoch in epochs)
    return Table(
        title="How early the final operations lead" + (f" ({title})" if title else ""),
        caption="Per cent of the final operations (those of the genotype) that were among the top "
        f"{N_LEADING} of their edge's importances after an epoch (the columns, from 0, and the "
        "last one of each search), mean over searches; in brackets by chance. The operation none "
        "takes no place, since the choice leaves it out, so chance is 3 of 7, 43 %, for eight "
        "candidate operations. It counts the operations that are still there: where "
        "a pruner has left three or fewer, the final one leads by construction, and where it "
        "removes what is unimportant, leading is a condition of being final. The full search "
        "shows the observation itself. Until the first step of alpha the order is that of "
        "its random start. n: searches that reached the epoch, if not all.",
        columns=plain("dataset", "backbone", "arm", "searches", *headings, form=COUNT),
        rows=tuple(rows),
    )


def _shown(row: Mapping[Hashable, Any]) -> Cell:
    text = f"{100 * row['share']:.0f} ({100 * row['chance']:.0f})"
    return text if row["n"] == row["n_searches"] else f"{text}, n {row['n']}"


def _distinct_searches(jobs: pd.DataFrame) -> pd.DataFrame:
    """One job for each search of an arm that has cells."""
    has_both = (jobs["genotype"].fillna("") != "") & (jobs["search_key"].fillna("") != "")
    ordered = jobs[has_both].sort_values("job_id")
    return ordered.drop_duplicates([*_ARM, "search_key"])


def _final_operations(job_id: str, genotype: str) -> Iterator[tuple[str, int, int, int, str]]:
    for level, edges in enumerate(json.loads(genotype)["levels"]):
        for source, target, operation in edges:
            yield job_id, level, source, target, operation


def _leads(rows: pd.DataFrame) -> pd.DataFrame:
    """Per search, epoch and chosen edge: what its final operation counts, and by chance.

    Args:
        rows: Operations of the chosen edges, the final one in the column ``final``; ``counts``
            says whether an operation is there and another than ``none``.
    """
    edge, counts = [*_EDGE, "epoch"], rows["counts"].astype(bool)
    own = rows["importance"].where(counts & (rows["operation"] == rows["final"]))
    # NaN where the final operation is gone: nothing equals it.
    threshold = own.groupby([rows[name] for name in edge]).transform("max")
    counted = rows[edge].assign(
        larger=counts & (rows["importance"] > threshold),
        same=counts & (rows["importance"] == threshold),
        there=counts,
    )
    found = counted.groupby(edge, as_index=False)[["larger", "same", "there"]].sum()
    places = (N_LEADING - found["larger"]) / found["same"].where(found["same"] > 0)
    chance = np.minimum(N_LEADING, found["there"]) / found["there"].where(found["there"] > 0)
    return found.assign(share=places.clip(0, 1).fillna(0.0), chance=chance.fillna(0.0))
