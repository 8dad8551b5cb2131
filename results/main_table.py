"""The main table of the report: an arm on a dataset and backbone in a row, a column for each fact.

A column is added by its line in `MAIN_COLUMNS`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from results.aggregate import mean_over_seeds, reported_subset, speedup, varying_settings
from results.arms import ArmTypes
from results.liveness import noted_arm_name
from results.metrics import METRICS, Metric
from results.schema import OUTCOME_PREFIX
from results.tables.cells import COUNT, FOUR_DIGITS, TIMES, Cell, Missing, Noted, Number
from results.tables.table import Column, Row, Table

_ARMS_EXPLAINED = Path(__file__).parent / "templates" / "definitions.txt"
_NO_SEARCH = Missing("no finished search")


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmJobs:
    """What a row of the main table is made of.

    Attributes:
        pruner: Value of the pruner axis.
        own: Jobs of the arm, of any status.
        group: Finished jobs of all arms on the same dataset, backbone and settings.
        subset: The patients that the report is about.
    """

    pruner: str
    own: pd.DataFrame
    group: pd.DataFrame
    subset: str

    @property
    def done(self) -> pd.DataFrame:
        """Finished jobs of the arm."""
        return done_in(self.own)

    @property
    def searches(self) -> pd.DataFrame:
        """Those that have a search."""
        return self.done[self.done["search_s"].notna()]


@dataclass(frozen=True, slots=True, kw_only=True)
class MainColumn:
    """A column of the main table.

    Attributes:
        column: Its heading, unit, format and meaning.
        cell: Returns the cell of an arm.
        says_subset: Whether the heading says which patients if they are not the test ones.
    """

    column: Column
    cell: Callable[[ArmJobs], Cell]
    says_subset: bool = False


def of_metric(metric: Metric, *, says_subset: bool = False) -> MainColumn:
    """Return the column of a metric: its mean ± sd over an arm's finished jobs."""
    column = Column(
        heading=metric.heading,
        unit=metric.unit,
        format=metric.format,
        meaning=metric.note,
        align="right",
    )
    return MainColumn(
        column=column,
        cell=lambda arm: _mean(arm.done[metric.job_column(arm.subset)], "no finished job has it"),
        says_subset=says_subset,
    )


def main_table(jobs: pd.DataFrame, caption: str = "") -> Table:
    """Return the main table.

    Args:
        jobs: One row per expected job; ``status`` is ``missing`` where there is none.
        caption: What the table says of itself.
    """
    varying, subset = varying_settings(jobs), reported_subset(jobs)
    shown_columns = (*MAIN_COLUMNS, *_of_other_stages(jobs))
    axes = ["dataset", "backbone", *varying]
    rows: list[Row] = []
    for key, part in jobs.groupby(axes, sort=True, dropna=False) if len(jobs) else ():
        names = map(setting_text, key)
        rows += _rows_of_group(tuple(names), part, subset, shown_columns)
    return Table(
        caption=caption,
        columns=(
            *(Column(heading=name.removeprefix("config_"), names_group=True) for name in axes),
            *(_column(shown, subset) for shown in shown_columns),
        ),
        rows=tuple(rows),
        notes=(
            _how_scores_are_averaged(),
            *(shown.column.meaning for shown in MAIN_COLUMNS if shown.column.meaning),
            *_ARMS_EXPLAINED.read_text(encoding="utf-8").splitlines(),
        ),
    )


def setting_text(value: object) -> str:
    """Return a setting's value as a table shows it: a job that left it unset has a null."""
    is_null = value is None or value is pd.NA or value != value
    return "unset" if is_null else str(value)


def done_in(jobs: pd.DataFrame) -> pd.DataFrame:
    """Return the jobs that are done."""
    return jobs[jobs["status"] == "done"]


def _of_other_stages(jobs: pd.DataFrame) -> list[MainColumn]:
    """Columns of the numbers that further kinds of stages have added to ``jobs``."""
    names = [str(name) for name in jobs.columns if str(name).startswith(OUTCOME_PREFIX)]
    return [_of_outcome(name) for name in names if pd.api.types.is_numeric_dtype(jobs[name])]


def _of_outcome(name: str) -> MainColumn:
    heading = name.removeprefix(OUTCOME_PREFIX).replace("_", " ")
    return MainColumn(
        column=Column(heading=heading, format=FOUR_DIGITS, align="right"),
        cell=lambda arm: _mean(arm.done[name], "no finished job has it"),
    )


def _rows_of_group(
    names: tuple[str, ...], part: pd.DataFrame, subset: str, shown_columns: Sequence[MainColumn]
) -> list[Row]:
    group = done_in(part)
    rows = []
    for pruner in ArmTypes(part).in_order(list(part["pruner"].unique())):
        own = part[part["pruner"] == pruner]
        arm = ArmJobs(pruner=pruner, own=own, group=group, subset=subset)
        rows.append((*names, *(shown.cell(arm) for shown in shown_columns)))
    return rows


def _column(shown: MainColumn, subset: str) -> Column:
    if subset == "test" or not shown.says_subset:
        return shown.column
    return replace(shown.column, heading=f"{shown.column.heading}, {subset}")


def _how_scores_are_averaged() -> str:
    *others, last = (metric.heading for metric in METRICS.values())
    return (
        f"{', '.join(others)} and {last} are computed per volume and class on the original grid, "
        "averaged over the volumes of a patient, then over patients, then over classes; ± is the "
        "standard deviation over an arm's jobs: seeds, folds and retrainings together."
    )


def _mean(values: pd.Series, reason: str) -> Number | Missing:
    found = mean_over_seeds(values)
    return Number(found.mean, found.sd) if found.n else Missing(reason)


def _epochs(arm: ArmJobs) -> Cell:
    searches = arm.searches
    if len(searches) == 0:
        return _NO_SEARCH
    ran = sorted({int(value) for value in searches["search_epochs"]})
    text = str(ran[0]) if len(ran) == 1 else f"{ran[0]}–{ran[-1]}"
    return f"{text} / {int(searches['search_epochs_full'].max())}"


def _speedup(arm: ArmJobs) -> Cell:
    if len(arm.searches) == 0:
        return _NO_SEARCH
    found = speedup(arm.group, arm.pruner)
    if found.refusal:
        refused = f"No speed-up is given: {found.refusal}."
        return Noted(Missing(found.refusal), refused)
    return "1" if ArmTypes(arm.own).is_full_search(arm.pruner) else Number(found.ratio)


def _seeds(arm: ArmJobs) -> Cell:
    own, n_done = arm.own, len(arm.done)
    if n_done == len(own):
        return Number(n_done)
    n_failed = int((own["status"] == "failed").sum())
    n_missing = int((own["status"] == "missing").sum())
    causes = [f"{n} {word}" for n, word in ((n_failed, "failed"), (n_missing, "missing")) if n]
    return f"{n_done} of {len(own)} ({', '.join(causes)})"


MAIN_COLUMNS: list[MainColumn] = [
    MainColumn(
        column=Column(heading="arm"),
        cell=lambda arm: noted_arm_name(arm.own, arm.pruner),
    ),
    of_metric(METRICS["dice"], says_subset=True),
    of_metric(METRICS["hd95_mm"]),
    MainColumn(
        column=Column(
            heading="search",
            unit="s",
            format=COUNT,
            meaning="Search seconds count everything that the search waits for: encoding the "
            "slices once, all epochs, scoring and the pruner; not compilation on a machine's "
            "first search, pre-training and retraining, which the tables list.",
            align="right",
        ),
        cell=lambda arm: _mean(arm.searches["search_s"], _NO_SEARCH.reason),
    ),
    MainColumn(column=Column(heading="epochs", align="right"), cell=_epochs),
    MainColumn(
        column=Column(
            heading="speed-up",
            format=TIMES,
            meaning="A speed-up is the median over seeds of full-search seconds over this "
            "search's seconds, given only for the same dataset, backbone, seed, device, threads "
            "and versions, each search alone on its device.",
            align="right",
        ),
        cell=_speedup,
    ),
    MainColumn(column=Column(heading="seeds", format=COUNT, align="right"), cell=_seeds),
]
"""Columns behind those that name the dataset, the backbone and the settings on the grid."""
