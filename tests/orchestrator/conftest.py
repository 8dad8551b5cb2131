"""Fixtures of tests that need a sweep with recorded searches."""

import pytest
from tiny_sweep import TINY_SWEEP

from orchestrator.executors import InlineExecutor
from orchestrator.run_sweep import View, run_sweep
from orchestrator.session import open_sweep

SHORT = "epochs: 6, batch_size: 4, steps_per_epoch: 2"
LONG = "epochs: 14, batch_size: 4, steps_per_epoch: 2"


@pytest.fixture(scope="session")
def finished(phantom_folder, tmp_path_factory):
    """A sweep whose searches are recorded: the full one and two pruned ones."""
    folder = tmp_path_factory.mktemp("replay")
    text = TINY_SWEEP.replace("PHANTOM", str(phantom_folder)).replace("SEEDS", "[0, 1]")
    text = text.replace("PRUNERS", "[none, js_stability, js_stability_fast, random]")
    path = folder / "tiny.yaml"
    path.write_text(text.replace(SHORT, LONG))
    session = open_sweep(path, {}, folder / "runs", needs_data=True)
    jobs = [job for job in session.expansion.jobs if (job.pruner, job.seed) != ("none", 1)]
    run_sweep(jobs, session.room(), InlineExecutor(), view=View(), on_job_end=lambda end: None)
    return session
