"""Metrics of segmentation: the one table of their names, units, meanings and columns.

A metric is added by its entry in `METRICS`, which gives it its columns in the tables ``patients``
and ``jobs`` and its means in MLflow, and by a line in `results.main_table.MAIN_COLUMNS`, which
shows it in the report. The evaluation of a stage computes it under the name of the entry.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from results.tables.cells import DICE, NumberFormat

SHORT_SUBSETS = {"test": "test", "validation": "val"}
"""Subset of patients → how the columns of its scores begin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A score of one class of one volume, averaged over patients for a job.

    Attributes:
        column: Its column in ``patients``; that of its means in ``jobs`` has the subset before
            it (`job_column`).
        heading: Its name in the report.
        label: Its name among the columns of ``jobs``.
        unit: Its unit; empty if it has none.
        direction: Whether larger or smaller values are better.
        meaning: What a patient's value is, for the tables.
        note: How it is defined, a paragraph for the report; empty if its name says it.
        format: How the report writes it.
        tracked: Subsets whose mean is a metric of the job's run in MLflow.
    """

    column: str
    heading: str
    label: str
    unit: str = ""
    direction: Literal["maximize", "minimize"]
    meaning: str
    note: str = ""
    format: NumberFormat
    tracked: Collection[str] = ("validation", "test")

    def job_column(self, subset: str) -> str:
        """Return the column of ``jobs`` that holds the mean over a subset's patients."""
        return f"{SHORT_SUBSETS[subset]}_{self.column}"


_MILLIMETRES = NumberFormat(spec=".1f")
METRICS: dict[str, Metric] = {
    "dice": Metric(
        column="dice",
        heading="Dice",
        label="Dice",
        direction="maximize",
        meaning="Dice on the original grid",
        format=DICE,
    ),
    "hd95_mm": Metric(
        column="hd95_mm",
        heading="HD95",
        label="HD95 (larger of both directions)",
        unit="mm",
        direction="minimize",
        meaning="larger of both directed 95th percentiles",
        note="HD95 is the larger of the two directed 95th percentiles of boundary distances, in "
        "millimetres. Both masks empty: left out, and counted under Absent classes. One mask "
        "empty: Dice 0 and the diagonal of the volume as HD95.",
        format=_MILLIMETRES,
    ),
    "hd95_pooled_mm": Metric(
        column="hd95_pooled_mm",
        heading="pooled HD95",
        label="HD95 of pooled distances",
        unit="mm",
        direction="minimize",
        meaning="95th percentile of both sets of distances",
        format=_MILLIMETRES,
        tracked=(),
    ),
    "surface_dice": Metric(
        column="surface_dice_2mm",
        heading="surface Dice",
        label="surface Dice at 2 mm",
        direction="maximize",
        meaning="surface Dice at 2 mm, area weighted",
        format=DICE,
        tracked=("test",),
    ),
}
"""Name of a score in an evaluation → the metric."""
