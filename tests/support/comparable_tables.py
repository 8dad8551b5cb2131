"""The tables of a sweep of tests without what differs from run to run."""

from pathlib import Path

import pandas as pd

from results.schema import wall_clock_columns
from results.store import read_tables


def comparable(runs: Path) -> dict[str, pd.DataFrame]:
    """Name → table of the sweep ``tiny`` in a runs folder, without times and machines."""
    tables = read_tables(runs / "tiny" / "tables")
    return {
        name: tables[name].drop(columns=wall_clock_columns(name))
        for name in ("jobs", "patients", "trajectories", "events", "curves")
    }
