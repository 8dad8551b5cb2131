"""What the screen shows of a search: the share of its edges that are alive."""

import io
import math

import pytest
from rich.console import Console

from orchestrator.cluster import Node
from orchestrator.live_view import PROGRESS_HEADINGS, LiveView, progress_cells
from orchestrator.price import forecast_of
from orchestrator.run_sweep import SweepProgress
from orchestrator.session import open_sweep
from workers.preemption import Preemption
from workers.reporting import FileReporter


@pytest.mark.parametrize(
    ("reported", "shown"),
    [
        ({"live_edges": 0.0}, "0 %"),
        ({"live_edges": 13 / 14}, "93 %"),
        ({"live_edges": 1.0}, "100 %"),
        ({"live_edges": math.nan}, ""),
        ({}, ""),
    ],
)
def test_the_share_of_living_edges_is_shown_where_it_is_reported(reported, shown):
    cells = dict(zip(PROGRESS_HEADINGS, progress_cells(reported), strict=True))
    assert cells["live edges"] == shown


def test_the_screen_shows_living_edges_while_a_search_runs(write_sweep, tmp_path):
    session = open_sweep(write_sweep("[none]"), {}, tmp_path / "runs", needs_data=True)
    plan = session.plan()
    search = next(task for task in plan.states[0].tasks if task.kind == "search")
    attempt = session.store.begin(search.kind, search.key, device="cpu")
    reporter = FileReporter(attempt, tmp_path / "stop", Preemption())
    reporter.progress(epoch=3, n_epochs=97, loss=0.5, n_operations=112, live_edges=0.5)
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with LiveView(
        console, plan, session.store, forecast_of(session, plan, [Node(cpus=2)])
    ) as view:
        view.refresh(SweepProgress(n_jobs=1, running=[search]))
    text = console.file.getvalue()
    assert "live edges" in text
    assert "50 %" in text
    attempt.give_up("stopped")
