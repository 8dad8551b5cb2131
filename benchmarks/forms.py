"""How a cell should sit in its skip: ``python -m benchmarks.forms TABLES``.

Reads the tables of sweeps/forms_screen.yaml and compares widths of nodes, starts and forms of the
retraining on validation patients. The winner has the highest validation Dice over all its cells
and seeds, among the forms

* under which most retrainings keep an epoch of their own: where they return their starting state,
  nothing was trained;
* in which cells can be told apart: the F-test of cell over cell × seed has p < 0.05. Where all
  cells tie, no search can be told from chance, and every claim of equal Dice is true for nothing.

The screen of a form with fewer than two seeds cannot say so, and the form cannot win. The first
condition was added when 39 of the first 96 retrainings had shown such forms, the second when the
first seed had shown that added cells tie within 0.1 points.
"""

import argparse
import json
from pathlib import Path

import pandas as pd
from scipy import stats

from results.statistics.variance_components import two_way_anova
from results.store import read_table

FORM = ["config_cell_node_width", "config_cell_start", "config_cell_form"]
MOST_KEPT_START = 0.5
"""Share of retrainings that may return their starting state."""
LEVEL = 0.05
PAPERS = (0.25, "plain", "replace")
"""Width of nodes, start and form as the papers read."""


def compared(jobs: pd.DataFrame) -> pd.DataFrame:
    """Return a row per form, best first.

    Args:
        jobs: Table ``jobs`` of the sweep.

    Returns:
        Columns: ``dice`` (mean validation Dice of all cells and seeds), ``gain`` (Dice points over
        the papers' reading, mean over seeds), ``low`` and ``high`` (95 % interval of the gain,
        Student's t over seeds), ``sd_cells`` (deviation between cells, each the mean of its
        seeds), ``sd_seeds`` (deviation of a cell's seeds, the seeds' own effect taken out),
        ``p_cells`` (F-test of cells over cell × seed), ``to_backbone`` (Dice points over the
        backbone alone), ``kept_start`` (share of retrainings that returned their start), ``n``.
    """
    done = jobs[jobs["status"] == "done"]
    backbone = done[done["pruner"] == "no_cell"].set_index("seed")["val_dice"]
    cells = done[~done["pruner"].str.startswith("no_cell")]
    by_seed = cells.pivot_table(index="seed", columns=FORM, values="val_dice")
    rows = []
    if cells.empty:
        raise SystemExit(
            "the tables must hold finished retrainings of cells, got none; run the sweep"
        )
    for form, part in cells.groupby(FORM):
        means = part.groupby("pruner")["val_dice"].mean()
        p_cells, sd_seeds = _cells_differ(part)
        gains = (100 * (by_seed[form] - by_seed[PAPERS])).dropna().astype(float)
        low, high = _interval(gains)
        rows.append(
            {
                **dict(zip(("node_width", "start", "form"), form, strict=True)),
                "dice": part["val_dice"].mean(),
                "gain": gains.mean(),
                "low": low,
                "high": high,
                "sd_cells": 100 * means.std(),
                "sd_seeds": 100 * sd_seeds,
                "p_cells": p_cells,
                "to_backbone": 100 * (by_seed[form] - backbone).mean(),
                "kept_start": part["retrain_kept_start"].astype(float).mean(),
                "n": len(part),
            }
        )
    return pd.DataFrame(rows).sort_values("dice", ascending=False, ignore_index=True)


def _cells_differ(part: pd.DataFrame) -> tuple[float, float]:
    """P of the F-test of cells over cell × seed, and the root of the latter's mean square."""
    table = part.pivot_table(index="pruner", columns="seed", values="val_dice").dropna()
    if min(table.shape) < 2:
        return float("nan"), float("nan")
    found = two_way_anova(table.to_numpy(dtype=float))
    ratio = found.row_mean_square / found.residual_mean_square
    p = float(stats.f.sf(ratio, found.n_rows - 1, found.residual_df))
    return p, found.residual_mean_square**0.5


def winner(rows: pd.DataFrame) -> pd.Series:
    """Return the best form of those that can win.

    Args:
        rows: As `compared` returns them.

    Raises:
        SystemExit: If none can.
    """
    can = rows[(rows["kept_start"] < MOST_KEPT_START) & (rows["p_cells"] < LEVEL)]
    if can.empty:
        raise SystemExit(
            "a winner must train and must tell cells apart, got no such form; run more seeds"
        )
    return can.iloc[0]


def _interval(values: pd.Series) -> tuple[float, float]:
    """95 % interval of a mean by Student's t; NaN for fewer than two values."""
    if len(values) < 2:
        return float("nan"), float("nan")
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.sem())
    return float(values.mean()) - half, float(values.mean()) + half


def main() -> None:
    """Print a row per form and per cell of the best one, then the winner as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", type=Path, help="folder of the sweep's tables")
    jobs = read_table(parser.parse_args().tables / "jobs.parquet", "jobs")
    rows = compared(jobs)
    with pd.option_context("display.width", 160, "display.max_columns", None):
        print(rows.to_string(index=False, float_format=lambda value: f"{value:.3f}"))
        cells = jobs.pivot_table(index="pruner", columns=FORM, values="val_dice")
        print(cells.to_string(float_format=lambda value: f"{value:.3f}"))
    best = winner(rows)
    print(
        json.dumps(
            {
                "name": "forms",
                "winner": {name: best[name] for name in ("node_width", "start", "form")},
                "gain": round(float(best["gain"]), 2),
                "n": int(rows["n"].sum()),
                "unit": "Dice points over the papers' reading, validation patients",
            }
        )
    )


if __name__ == "__main__":
    main()
