"""Which searches were alive, and the names that the report gives to the arms of dead ones.

What "alive" means is decided by the search and recorded with it; nothing is judged here. A record
of an older version says nothing, and the report calls nothing dead or alive then.
"""

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from results.tables.cells import PER_CENT, Cell, Missing, Noted, NumberFormat, number
from results.tables.table import Column, Row, Table, plain

DEAD = "random cell (dead search)"
"""What the report calls a cell that a dead search found."""
NOT_RECORDED = "not recorded"
_UNKNOWN = Missing("an older version ran it and did not say", sign=NOT_RECORDED)
_TWO_DIGITS = NumberFormat(spec=".2f")
_COLUMNS = (
    *plain("dataset", "backbone", "arm", "searches alive"),
    Column(heading="live edges", format=PER_CENT),
    Column(heading="contribution", format=_TWO_DIGITS),
    Column(heading="entropy", unit="bits", format=_TWO_DIGITS),
    *plain("kept the start"),
)
_ARM = ["dataset", "backbone", "pruner"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AliveCount:
    """How many searches of an arm were alive.

    Attributes:
        n_searches: Distinct finished searches.
        n_recorded: Those that say whether they were alive.
        n_alive: Those that were.
    """

    n_searches: int
    n_recorded: int
    n_alive: int

    @property
    def is_dead(self) -> bool:
        """Whether all searches say that they were dead."""
        return self.n_searches > 0 and self.n_recorded == self.n_searches and self.n_alive == 0

    @property
    def n_dead(self) -> int:
        """Searches that say that they were dead."""
        return self.n_recorded - self.n_alive


def distinct_searches(jobs: pd.DataFrame) -> pd.DataFrame:
    """Return one finished job for each search; jobs without a search are left out."""
    searched = jobs[(jobs["status"] == "done") & jobs["search_s"].notna()]
    return searched[searched["search_key"].isna() | ~searched["search_key"].duplicated()]


def count_alive(jobs: pd.DataFrame) -> AliveCount:
    """Count the searches of some jobs."""
    searches = distinct_searches(jobs)
    says = searches["search_is_alive"].dropna().astype(bool)
    return AliveCount(n_searches=len(searches), n_recorded=len(says), n_alive=int(says.sum()))


def arm_name(jobs: pd.DataFrame, pruner: str) -> str:
    """Return an arm's name, saying so if its cells are those of dead searches alone.

    Args:
        jobs: The arm's jobs on one dataset and backbone.
        pruner: Value of the pruner axis.
    """
    return f"{pruner}: {DEAD}" if count_alive(jobs).is_dead else pruner


def noted_arm_name(jobs: pd.DataFrame, pruner: str) -> str | Noted:
    """Return an arm's name, with a footnote where any of its searches was dead.

    Args:
        jobs: The arm's jobs on one dataset and backbone.
        pruner: Value of the pruner axis.
    """
    count = count_alive(jobs)
    if count.n_dead == 0:
        return pruner
    if count.is_dead:
        return Noted(
            f"{pruner}: {DEAD}",
            "No search of this arm was alive, so the cells that they found are random cells and "
            "are named so.",
        )
    n_dead = f"{count.n_dead} of {count.n_searches}"
    return Noted(
        pruner,
        f"Dead searches of {pruner}: {n_dead}. The cells that they found are random cells.",
    )


class ArmNames:
    """Names of the arms of one group of the report.

    Args:
        jobs: Jobs of the group.
    """

    def __init__(self, jobs: pd.DataFrame) -> None:
        self._names = {
            tuple(map(str, key)): arm_name(part, str(key[-1]))
            for key, part in jobs.groupby(_ARM, sort=True)
        }

    def of(self, dataset: object, backbone: object, pruner: object) -> str:
        """Return the name of an arm on a dataset and backbone."""
        return self._names.get((str(dataset), str(backbone), str(pruner)), str(pruner))


def dead_jobs(jobs: pd.DataFrame) -> frozenset[str]:
    """Return the ids of the jobs whose cells a dead search found."""
    says = jobs[jobs["search_is_alive"].notna()]
    return frozenset(says.loc[~says["search_is_alive"].astype(bool), "job_id"].astype(str))


def liveness_table(jobs: pd.DataFrame, looks: pd.DataFrame) -> pd.DataFrame:
    """Return a row per dataset, backbone and arm that has a search or a retraining.

    Args:
        jobs: Finished jobs of one group of the report.
        looks: Rows of the table ``liveness``.

    Returns:
        Columns ``dataset``, ``backbone``, ``pruner``, ``n_searches``, ``n_recorded``,
        ``n_alive``, ``live_edge_share`` (median over searches), ``cell_contribution`` (smallest),
        ``entropy_bits`` (of the last look, mean over edges, median over searches),
        ``n_retrainings``, ``n_starts_recorded``, ``n_kept_start``; NaN where nothing is recorded.
    """
    rows = []
    for key, part in jobs.groupby(_ARM, sort=True):
        searches, retrainings = distinct_searches(part), _distinct_retrainings(part)
        if len(searches) + len(retrainings) == 0:
            continue
        count, kept = count_alive(part), retrainings["retrain_kept_start"].dropna().astype(bool)
        own = looks[looks["search_key"].isin(set(searches["search_key"].dropna()))]
        rows.append(
            {
                **dict(zip(_ARM, key, strict=True)),
                "n_searches": count.n_searches,
                "n_recorded": count.n_recorded,
                "n_alive": count.n_alive,
                "live_edge_share": _median(searches["live_edge_share"]),
                "cell_contribution": _smallest(searches["cell_contribution"]),
                "entropy_bits": _median(last_entropies(own)),
                "n_retrainings": len(retrainings),
                "n_starts_recorded": len(kept),
                "n_kept_start": int(kept.sum()),
            }
        )
    return pd.DataFrame(rows)


def last_entropies(looks: pd.DataFrame) -> "pd.Series[float]":
    """Return for every search the mean entropy of its edges at its last look, in bits.

    Args:
        looks: Rows of the table ``liveness``; a search that several jobs share may stand there
            several times.
    """
    last = looks.groupby("search_key")["look"].transform("max")
    at_last = looks[looks["look"] == last]
    found: pd.Series[float] = at_last.groupby("search_key")["entropy_bits"].mean().astype(float)
    return found


def liveness_section(jobs: pd.DataFrame, looks: pd.DataFrame, title: str) -> Table:
    """Return the report's table of living searches and of retrainings that kept their start.

    Args:
        jobs: Finished jobs of one group of the report.
        looks: Rows of the table ``liveness``.
        title: Settings that the group stands for, empty if there is one group.

    Returns:
        A row per arm that has a search or a retraining; one row for all if nothing is recorded.
    """
    names, table = ArmNames(jobs), liveness_table(jobs, looks)
    rows: tuple[Row, ...] = tuple(
        (
            str(row["dataset"]),
            str(row["backbone"]),
            names.of(row["dataset"], row["backbone"], row["pruner"]),
            _share(row["n_alive"], row["n_recorded"], row["n_searches"]),
            *(
                _of_searches(row, name)
                for name in ("live_edge_share", "cell_contribution", "entropy_bits")
            ),
            _share(row["n_kept_start"], row["n_starts_recorded"], row["n_retrainings"]),
        )
        for row in table.to_dict("records")
    )
    if len(table) and not table[["n_recorded", "n_starts_recorded"]].any(axis=None):
        rows = (("all", "all", "all", *[_UNKNOWN] * 5),)
    return Table(
        title="Living searches and starting states" + (f" ({title})" if title else ""),
        caption="Live edges: share of a search's edges that evidence had reached before they were "
        "first pruned, median over searches. Contribution: what the cell adds over what the "
        "decoder receives, smallest over searches and levels. Entropy: of the operation "
        "importance at the last look, mean over edges, median over searches; it decides nothing. "
        "Kept the start: retrainings that returned the state they started from, since no later "
        "one scored higher on validation patients.",
        columns=_COLUMNS,
        rows=rows,
    )


def _distinct_retrainings(jobs: pd.DataFrame) -> pd.DataFrame:
    done = jobs[(jobs["status"] == "done") & jobs["best_retrain_epoch"].notna()]
    return done[done["retrain_key"].isna() | ~done["retrain_key"].duplicated()]


def _share(n: int, n_recorded: int, n_all: int) -> Cell:
    if n_all == 0:
        return Missing("the arm has none")
    if n_recorded == 0:
        return _UNKNOWN
    unknown = n_all - n_recorded
    return f"{n} of {n_recorded}" + (f" ({unknown} {NOT_RECORDED})" if unknown else "")


def _of_searches(row: Mapping[Hashable, Any], name: str) -> Cell:
    if row["n_searches"] == 0:
        return Missing("the arm has no search")
    return number(row[name], "not recorded by these searches") if row["n_recorded"] else _UNKNOWN


def _median(values: pd.Series) -> float:
    found = values.dropna().astype(float)
    return float(found.median()) if len(found) else math.nan


def _smallest(values: pd.Series) -> float:
    found = values.dropna().astype(float)
    return float(found.min()) if len(found) else math.nan
