"""What plan, run and status say of time, money and disk."""

import io
import itertools
import re
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from orchestrator.cluster import Node
from orchestrator.costs import CostModel, Observation
from orchestrator.executors import InlineExecutor
from orchestrator.forecast import Forecast
from orchestrator.live_view import LineView, LiveView
from orchestrator.plan import KnownRecords
from orchestrator.price import forecast_lines, forecast_of, keep_nodes, kept_nodes, time_left
from orchestrator.probe import probe
from orchestrator.run_sweep import View, run_sweep
from orchestrator.session import open_sweep
from orchestrator.simulation import SimulatedStage, StageGraph, simulate
from workers.stage_store import StageRecord
from workers.task_graph import stage_tasks


def text_of(lines):
    """What a terminal of 200 columns shows."""
    console = Console(width=200, file=io.StringIO())
    for line in lines:
        console.print(line, soft_wrap=True)
    return console.file.getvalue()


ARMS = "[no_cell, random, none, js_stability]"
GENOTYPE = "any"
SECONDS = {
    "prepare": 2.0,
    "pretrain": 300.0,
    "search": 200.0,
    "retrain": 110.0,
    "predict": 6.0,
    "evaluate": 3.0,
}


@pytest.fixture
def open_tiny(write_sweep, tmp_path):
    def open_it(*arguments):
        path = write_sweep(*arguments)
        return open_sweep(path, {}, tmp_path / "runs", needs_data=True)

    return open_it


def said(session, nodes, price=None):
    forecast = forecast_of(session, session.plan(), nodes)
    return text_of(forecast_lines(session, forecast, price))


def test_without_observations_the_plan_says_so_and_names_the_probe(open_tiny):
    text = said(open_tiny(ARMS), [Node(cpus=2)], 3.0)
    assert "nothing was ever observed" in text
    assert "--probe" in text
    assert "no order of the stages" not in text


def test_a_finished_sweep_tells_what_more_seeds_take(open_tiny):
    session = open_tiny("[no_cell, random]")
    run_sweep(
        session.expansion.jobs, session.room(), InlineExecutor(), view=View(),
        on_job_end=lambda end: None,
    )  # fmt: skip
    more = open_tiny("[no_cell, random]", "[0, 1, 2]")
    forecast = forecast_of(more, more.plan(), [Node(cpus=2)])
    rows = {row.kind: row for row in forecast.by_kind()}
    assert set(rows) == {"pretrain", "retrain", "predict", "evaluate"}
    assert all(row.groups == {"the same": row.hours.n} for row in rows.values())
    assert rows["pretrain"].hours.n == 2
    weights = session.store.root / "pretrain"
    size = sum(path.stat().st_size for path in weights.rglob("*") if path.is_file())
    assert rows["pretrain"].n_bytes == 2 * size
    text = said(more, [Node(cpus=2)], 3.0)
    for words in ("CPU", "cost", "On 1 × 2 CPUs and 0 GPUs:", "Disk:", "are free"):
        assert words in text
    assert "nothing was ever observed" not in text
    refused = said(more, [Node(cpus=0.5)])
    assert "`run` will refuse: resources.pretrain must fit one machine" in refused


def test_a_store_that_does_not_fit_its_disk_is_warned_of(open_tiny, monkeypatch):
    session = open_tiny("[no_cell]")
    run_sweep(
        session.expansion.jobs, session.room(), InlineExecutor(), view=View(),
        on_job_end=lambda end: None,
    )  # fmt: skip
    monkeypatch.setattr("orchestrator.price.free_bytes", lambda folder: 1000)
    text = said(open_tiny("[no_cell]", "[0, 1]"), [Node(cpus=2)])
    assert re.search(r"The store must fit its disk, got .* where 1000 B are free; make room", text)


def test_a_probe_measures_what_was_never_observed_and_once(open_tiny):
    session = open_tiny("[none]")

    def measured():
        forecast = forecast_of(session, session.plan(), [Node(cpus=2)])
        wanted = [(forecast.jobs[place], one) for place, one in forecast.questions.items()]
        return probe(wanted, forecast.model, session.store, device="cpu"), forecast

    done, forecast = measured()
    assert {line.split()[0] for line in done.measured} == {
        "prepare", "pretrain", "search", "retrain", "predict", "evaluate",
    }  # fmt: skip
    assert all(forecast.model.answer(one) for one in forecast.questions.values())
    assert session.plan().done == frozenset()
    again, _ = measured()
    assert again.measured == ()
    assert "Intervals hold" in said(session, [Node(cpus=2)])


def test_a_probe_ends_with_its_time_and_goes_on_later(open_tiny):
    session = open_tiny("[none]")
    forecast = forecast_of(session, session.plan(), [Node(cpus=2)])
    wanted = [(forecast.jobs[place], one) for place, one in forecast.questions.items()]
    clock = itertools.count(step=100)
    done = probe(wanted, forecast.model, session.store, device="cpu", clock=lambda: next(clock))
    assert done.measured == ()
    assert done.left_out == ("unet: the time was up, --probe again goes on with it",)


def test_the_machines_of_a_run_are_found_by_status(open_tiny):
    session = open_tiny("[none]")
    assert kept_nodes(session) == ()
    nodes = (Node(cpus=32, gpus=4, memory_gib=64), Node(cpus=8))
    keep_nodes(session, nodes)
    assert kept_nodes(session) == nodes


@pytest.mark.parametrize("seed", range(5))
def test_after_part_of_a_sweep_the_rest_takes_what_was_said(open_tiny, seed):
    """Every second job has run; each stage has a time of its own."""
    session = open_tiny(ARMS, str(list(range(12))))
    plan, nodes = session.plan(), [Node(cpus=2)]
    forecast = Forecast(
        plan, KnownRecords(session.store), CostModel(),
        resources=session.spec.resources, nodes=nodes,
    )  # fmt: skip
    generator = np.random.default_rng(seed)
    truth = {
        place: SECONDS[place[0]] * float(np.exp(0.25 * generator.normal()))
        for place in forecast.questions
    }
    ended = set()
    for state in plan.states[::2]:
        for task in state.tasks:
            place = (task.kind, task.key)
            note(forecast, task, truth[place])
        known = {task.id for task in state.tasks}
        for place in set(forecast.stages_of[state.job.job_id]) - known:
            forecast.model.add(Observation(of=forecast.questions[place], seconds=truth[place]))
        ended.add(state.job.job_id)
    left = forecast.seconds_left(ended)
    assert left.n_unknown == 0
    graph = forecast.graph(ended)
    stages = {
        place: SimulatedStage(seconds=truth[place], needs=stage.needs)
        for place, stage in graph.stages.items()
    }
    real = simulate(StageGraph(stages=stages, after=graph.after), nodes)
    assert left.low <= real <= left.high
    assert left.high < 3 * left.low
    assert "left (" in time_left(left)


def note(forecast, task, seconds):
    record = StageRecord(
        kind=task.kind, key=task.key, settings=task.settings, outcome={},
        provenance={"job": task.names(), "device": "a clock (2 logical CPUs)"},
        attempts=({"start": 0.0, "end": seconds},),
    )  # fmt: skip
    forecast.note_end(task, record, was_computed=True)


def test_an_estimate_falls_while_a_stage_runs(open_tiny):
    session = open_tiny("[no_cell]")
    forecast = Forecast(
        session.plan(), KnownRecords(session.store), CostModel(),
        resources=session.spec.resources, nodes=[Node(cpus=2)],
    )  # fmt: skip
    for place, question in forecast.questions.items():
        forecast.model.add(Observation(of=question, seconds=SECONDS[place[0]]))
    forecast.nodes = [Node(cpus=0.5)]  # the machine that holds them is still to join
    assert forecast.seconds_left().value > 0
    forecast.nodes = [Node(cpus=2)]
    (pretrain,) = (place for place in forecast.questions if place[0] == "pretrain")
    whole = forecast.seconds_left().value
    half = forecast.seconds_left(begun_s={pretrain: 150.0}).value
    assert half == pytest.approx(whole - 150.0, rel=0.1)
    late = forecast.seconds_left(begun_s={pretrain: 500.0})
    assert late.value == pytest.approx(50.0 + whole - forecast.graph().stages[pretrain].seconds)
    assert time_left(replace(late, n_unknown=1)) == ""


def test_the_estimate_knows_a_retraining_whose_key_came_with_its_genotype(open_tiny):
    session = open_tiny("[none]")
    forecast = Forecast(
        session.plan(), KnownRecords(session.store), CostModel(),
        resources=session.spec.resources, nodes=[Node(cpus=2)],
    )  # fmt: skip
    for place, question in forecast.questions.items():
        forecast.model.add(Observation(of=question, seconds=SECONDS[place[0]]))
    (job,) = session.expansion.jobs
    source = session.sources[job.dataset]
    search = stage_tasks(job, source, {})[-1]
    retrain = stage_tasks(job, source, {search.id: {"genotype": GENOTYPE}})[3]
    forecast.note_submitted(retrain)
    whole = forecast.seconds_left().value
    begun = forecast.seconds_left(begun_s={("retrain", retrain.key): 60.0}).value
    assert begun == pytest.approx(whole - 60.0)


@pytest.mark.parametrize("on_terminal", [False, True])
def test_a_running_sweep_says_how_long_it_will_take(open_tiny, monkeypatch, on_terminal):
    monkeypatch.setattr("orchestrator.live_view._SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr("orchestrator.live_view._SECONDS_BETWEEN_ESTIMATES", 0.0)
    monkeypatch.setattr("orchestrator.run_sweep._POLL_S", 0.0)
    first = open_tiny("[no_cell]")
    run_sweep(
        first.expansion.jobs, first.room(), InlineExecutor(), view=View(),
        on_job_end=lambda end: None,
    )  # fmt: skip
    session = open_tiny("[no_cell]", "[0, 1, 2]")
    plan = session.plan()
    forecast = forecast_of(session, plan, [Node(cpus=2)])
    console = Console(width=200, file=io.StringIO(), force_terminal=on_terminal)
    with ExitStack() as stack:
        view = LineView(console, session.store, forecast)
        if on_terminal:
            view = stack.enter_context(LiveView(console, plan, session.store, forecast))
        run_sweep(
            session.expansion.jobs, session.room(), InlineExecutor(), view=view,
            on_job_end=lambda end: None,
        )  # fmt: skip
    shown = re.findall(r"(\d) of 3 jobs ended .*about .* left \(", console.file.getvalue())
    assert {"1", "2"} <= set(shown)
    assert forecast.seconds_left().n == 0
