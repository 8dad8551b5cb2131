"""The phantom is neither trivial nor hopeless for the quick start's own U-Net."""

from pathlib import Path

import pytest

from iac_core.data.phantom import PhantomSettings, write_phantom
from orchestrator.executors import InlineExecutor
from orchestrator.rows import job_tables
from orchestrator.run_sweep import View, run_sweep
from orchestrator.session import open_sweep

SWEEP = Path(__file__).parents[2] / "sweeps" / "quickstart.yaml"


@pytest.mark.slow
def test_a_small_u_net_scores_between_60_and_90_on_phantom_patients(tmp_path):
    folder = tmp_path / "phantom"
    write_phantom(folder, PhantomSettings(n_patients=16))
    session = open_sweep(SWEEP, {"phantom": str(folder)}, tmp_path / "runs", needs_data=True)
    jobs = [job for job in session.expansion.jobs if job.pruner == "no_cell"]
    ends = []
    run_sweep(jobs, session.room(), InlineExecutor(), view=View(), on_job_end=ends.append)
    assert ends[0].failure is None, ends[0].failure
    row = job_tables(ends[0].state.tasks, session.store, sweep="quickstart")["jobs"].iloc[0]
    assert 0.6 < row["val_dice"] < 0.9
    assert 0.6 < row["test_dice"] < 0.9
