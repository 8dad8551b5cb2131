"""Figures of the report, each with its file name and what it shows."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import pandas as pd

from results.aggregate import reported_subset
from results.arms import ArmTypes
from results.early_decision import early_decision_curves
from results.escaping import file_name
from results.figures import (
    cell_drawing,
    dice_against_seconds,
    importance_trajectories,
    jsd_trajectories,
    leading_operations,
)
from results.liveness import DEAD, dead_jobs
from results.main_table import done_in
from results.metrics import METRICS
from results.sections import groups_of

_MOST_CELLS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Illustration:
    """A figure: its file name, what it shows, its SVG."""

    name: str
    caption: str
    svg: str


def illustrations(jobs: pd.DataFrame, tables: Mapping[str, pd.DataFrame]) -> list[Illustration]:
    """Return the figures of a sweep; those that have nothing to show are left out.

    Args:
        jobs: One row per expected job.
        tables: Table name → rows.
    """
    trajectories, events = tables["trajectories"], tables["events"]
    subset, dead = reported_subset(jobs), dead_jobs(jobs)
    found = [
        Illustration(
            name="dice_against_seconds",
            caption=f"{subset.capitalize()} Dice against seconds of search, a point per job."
            + (" What dead searches found are random cells." if dead else ""),
            svg=dice_against_seconds(jobs, METRICS["dice"].job_column(subset)),
        ),
        Illustration(
            name="jsd",
            caption="Jensen–Shannon divergence of every edge between adjacent windows of epochs. "
            "Dots: an edge lost operations. Dashed: the threshold of an absolute rule.",
            svg=jsd_trajectories(trajectories, events),
        ),
    ]
    found += _early_decisions(jobs, trajectories)
    for pruner in ArmTypes(jobs).in_order(list(trajectories["pruner"].dropna().unique())):
        part = trajectories[trajectories["pruner"] == pruner]
        first = part.iloc[0]
        own = part[part["job_id"] == first["job_id"]]
        found.append(
            Illustration(
                name=file_name(f"importance_{pruner}"),
                caption="Importance of the operations on each edge, "
                f"{_search_name(first, dead)}. A line ends where its operation was removed.",
                svg=importance_trajectories(own),
            )
        )
    found += _cells(jobs, dead)
    return [figure for figure in found if figure.svg]


def _early_decisions(jobs: pd.DataFrame, trajectories: pd.DataFrame) -> list[Illustration]:
    """A figure for each group of settings."""
    return [
        Illustration(
            name="early_decision" + (f"_{index}" if index else ""),
            caption="Final operations among the top 3 of their edge's importances after so many "
            "epochs, mean over an arm's searches" + (f" ({title})" if title else "") + ". Dashed: "
            "by chance, which rises as operations are removed. A line ends with the first of its "
            "searches.",
            svg=leading_operations(early_decision_curves(part, trajectories)),
        )
        for index, (title, part) in enumerate(groups_of(done_in(jobs)))
    ]


def _cells(jobs: pd.DataFrame, dead: Collection[str]) -> list[Illustration]:
    """A drawing for each of the first cells."""
    drawn, found = jobs[jobs["genotype"].notna() & (jobs["genotype"] != "")], []
    shown = f" ({min(len(drawn), _MOST_CELLS)} of {len(drawn)} cells are drawn)"
    for place, (_, job) in enumerate(drawn.head(_MOST_CELLS).iterrows()):
        title = _search_name(job, dead)
        found.append(
            Illustration(
                name=file_name(f"cell_{job['job_id']}"),
                caption=f"Cell of {title}{'' if place else shown}.",
                svg=cell_drawing(str(job["genotype"]), title),
            )
        )
    return found


def _search_name(row: pd.Series, dead: Collection[str]) -> str:
    name = f"{row['dataset']} · {row['backbone']} · {row['pruner']} · seed {row['seed']}"
    return f"{name} · {DEAD}" if row["job_id"] in dead else name
