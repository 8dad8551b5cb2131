"""A store of an earlier commit is found whole, and gives the tables that it gave then.

``golden/store.tar.xz`` holds the data, the sweep, the store and the tables of a run of seconds, as
commit 23673d2 and this file wrote them (``PYTHONPATH=.:tests/support python
tests/contracts/test_golden_store.py``). It is written anew only where a stage has a new version on
purpose, with the reason in the commit.
"""

import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pandas as pd
import pytest
from layout_folders import folder as write_data

from orchestrator.session import open_sweep
from results.schema import TABLES
from results.store import read_table

LATER_COLUMNS = ("arm_type",)
"""Columns that the tables of then did not have."""
ARCHIVE = Path(__file__).parent / "golden" / "store.tar.xz"
PARTS = ("data", "tiny.yaml", "runs/store", "runs/tiny/tables")
SWEEP = """
metadata:
  sweep:
    name: tiny
    datasets: {organs: {layout: folder, path: data}}
    grid:
      dataset: [organs]
      backbone: [unet]
      pruner: [no_cell, no_cell_longer, random, none, early, js_stability, one_shot]
      seed: [0, 1]
    stages:
      prepare: {size: 32, spacing_mm: 2.0}
      split: {n_folds: 3, validation_share: 0.3}
      pretrain: {epochs: 2, batch_size: 4, steps_per_epoch: 2}
      cell: {n_nodes: 2}
      search: {epochs: 4, batch_size: 4, steps_per_epoch: 2, alpha_warmup_epochs: 1}
      retrain: {epochs: 2, batch_size: 4, steps_per_epoch: 2}
    backbones: {unet: {widths: [8, 16]}}
    pruners:
      early: {type: stop_at_epoch, epochs: 2}
      js_stability: {type: js_absolute, window_epochs: 1, patience_epochs: 1, threshold: 0.5,
                     living_edges_only: false}
      one_shot: {n_steps: 8, eliminate_from_step: 4, n_evaluations: 8, population: 4,
                 tournament: 2, n_finalists: 2, finalist_steps: 2, n_scoring_slices: 8}
    resources: {threads: 1, cpus: 2, exclusive_search: false}
"""


@pytest.mark.slow
def test_a_store_of_an_earlier_commit_is_whole_and_gives_its_tables(tmp_path):
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    assert ARCHIVE.stat().st_size < 3e6
    session = open_sweep(tmp_path / "tiny.yaml", {}, tmp_path / "runs", needs_data=True)
    assert [state.is_done for state in session.plan().states] == [True] * 14
    before = tables_in(tmp_path)
    shutil.rmtree(tmp_path / "runs" / "tiny")
    said = run(tmp_path)
    assert " start " not in said
    for name, frame in tables_in(tmp_path).items():
        then = [column for column in frame if column not in LATER_COLUMNS]
        pd.testing.assert_frame_equal(frame[then], before[name][then], obj=name)


def tables_in(folder):
    tables = folder / "runs" / "tiny" / "tables"
    return {name: read_table(tables / f"{name}.parquet", name) for name in TABLES}


def run(folder):
    words = [sys.executable, "-m", "orchestrator", "run", "tiny.yaml", "--inline"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def write_archive():
    """Run the sweep and keep what it left."""
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        write_data(root / "data")
        (root / "tiny.yaml").write_text(SWEEP)
        run(root)
        with tarfile.open(ARCHIVE, "w:xz") as archive:
            for part in PARTS:
                archive.add(root / part, part, filter=_without_owner)


def _without_owner(entry):
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return None if "tables/runs" in entry.name else entry


if __name__ == "__main__":
    write_archive()
