"""Schedules that can be computed by hand, and the real loop on a clock that only events move."""

import heapq
import itertools

import pytest

from orchestrator.cluster import Node, requested
from orchestrator.costs import CostModel, Observation
from orchestrator.forecast import Forecast
from orchestrator.plan import KnownRecords
from orchestrator.resources import StageResources
from orchestrator.run_sweep import View, run_sweep
from orchestrator.session import open_sweep
from orchestrator.simulation import SimulatedStage, StageGraph, simulate
from workers.run_stage import StageEnd
from workers.stage_store import StageRecord

ONE = StageResources(cpus=1, gpus=0)
TWO = StageResources(cpus=2, gpus=0)


def graph(*chains, whole=()):
    """Chains of names such as ``a3``: a stage of three seconds."""
    stages = {
        ("kind", name): SimulatedStage(
            seconds=float(name[1:]), needs=TWO if name in whole else ONE
        )
        for name in itertools.chain(*chains)
    }
    after = {}
    for names in chains:
        for before, name in itertools.pairwise(names):
            after.setdefault(("kind", name), [("kind", before)])
    return StageGraph(stages=stages, after=after)


@pytest.mark.parametrize(
    ("chains", "whole", "in_order", "longest_first"),
    [
        ([["a3"], ["b2"], ["c2"]], (), 4, 4),
        ([["a1"], ["b1"], ["c3"]], (), 4, 3),
        ([["p3", "x2"], ["p3", "y2"]], (), 5, 5),  # the shared stage runs once
        ([["a1", "b1"], ["c1"]], (), 2, 2),
        ([["a1", "s2"], ["b1", "t2"], ["c4"]], ("s2", "t2"), 9, 8),  # s and t take both CPUs
    ],
)
def test_schedules_of_two_cpus(chains, whole, in_order, longest_first):
    found = graph(*chains, whole=whole)
    nodes = [Node(cpus=2)]
    assert simulate(found, nodes) == in_order
    priorities = found.priorities()
    assert simulate(found, nodes, priority=priorities.__getitem__) == longest_first
    assert found.lower_bound_s(nodes) <= longest_first


def test_a_stage_waits_for_a_machine_that_holds_it_and_others_go_past():
    found = graph(["a2"], ["w2"], ["b2"], ["c2"], whole=("w2",))
    # Machines of 2 and 1 CPUs: w needs the large one, b and c fill the rest.
    assert simulate(found, [Node(cpus=2), Node(cpus=1)]) == 4
    with pytest.raises(ValueError, match="every stage must fit a machine"):
        simulate(found, [Node(cpus=1)])


def test_bounds_are_the_longest_chain_or_the_work_over_the_machines():
    assert graph(["a5", "b5"], ["c1"]).lower_bound_s([Node(cpus=8)]) == 10
    assert graph(*([f"{name}4"] for name in "abcdefgh")).lower_bound_s([Node(cpus=2)]) == 16
    gpus = {("k", "a"): SimulatedStage(seconds=6, needs=StageResources(cpus=1, gpus=0.5))}
    one = StageGraph(stages=gpus, after={})
    assert one.lower_bound_s([Node(cpus=64, gpus=4)]) == 6


SECONDS = {
    "prepare": 2.0,
    "pretrain": 30.0,
    "search": 20.0,
    "retrain": 11.0,
    "predict": 4.0,
    "evaluate": 3.0,
}


class VirtualExecutor:
    """Runs stages on a clock that jumps to the next end, on one machine of so many CPUs."""

    def __init__(self, n_cpus):
        self.free, self.now, self.n = n_cpus, 0.0, itertools.count()
        self.waiting, self.ends, self.nodes = [], [], [Node(cpus=n_cpus)]
        self.start = {}

    def submit(self, task, order, resources, priority=0.0):
        needs = requested(resources, self.nodes, is_exclusive=order.is_exclusive)
        self.waiting.append((-priority, next(self.n), task, needs))

    def running(self):
        return [entry[2] for entry in self.waiting] + [entry[2] for entry in self.ends]

    def leaving_nodes(self):
        return ()

    def forget(self, task):
        raise AssertionError("nothing is ever silent here")

    def ended(self, timeout_s):
        for entry in sorted(self.waiting, key=lambda entry: entry[:2]):
            _, _, task, needs = entry
            if needs.cpus <= self.free:
                self.free -= needs.cpus
                self.waiting.remove(entry)
                self.start[task.key] = self.now
                end = self.now + SECONDS[task.kind]
                heapq.heappush(self.ends, (end, next(self.n), task, needs))
        self.now = self.ends[0][0]
        found = []
        while self.ends and self.ends[0][0] <= self.now:
            _, _, task, needs = heapq.heappop(self.ends)
            self.free += needs.cpus
            found.append((task, StageEnd(ending="done", record=self.record(task))))
        return found

    def record(self, task):
        attempt = {"start": self.start[task.key], "end": self.now}
        return StageRecord(
            kind=task.kind,
            key=task.key,
            settings=task.settings,
            outcome={"genotype": f"of {task.key}"} if task.kind == "search" else {},
            provenance={"job": task.names(), "device": "a clock"},
            attempts=(attempt,),
        )


def forecast_of(session, nodes):
    """A forecast that has seen one stage of each kind take exactly its seconds."""

    def forecast(model):
        return Forecast(
            session.plan(), KnownRecords(session.store), model,
            resources=session.spec.resources, nodes=nodes,
        )  # fmt: skip

    questions = {place[0]: one for place, one in forecast(CostModel()).questions.items()}
    return forecast(
        CostModel(
            Observation(of=question, seconds=SECONDS[kind]) for kind, question in questions.items()
        )
    )


@pytest.mark.parametrize("longest_first", [False, True])
@pytest.mark.parametrize("is_exclusive", [False, True])
@pytest.mark.parametrize("n_cpus", [1, 3, 7])
def test_the_simulation_agrees_with_the_loop_itself(
    write_sweep, tmp_path, n_cpus, is_exclusive, longest_first
):
    path = write_sweep("[no_cell, random, none, js_stability]", "[0, 1, 2]")
    if is_exclusive:
        text = path.read_text().replace("exclusive_search: false", "exclusive_search: true")
        path.write_text(text)
    session = open_sweep(path, {}, tmp_path / "runs", needs_data=True)
    executor = VirtualExecutor(n_cpus)
    forecast = forecast_of(session, executor.nodes)
    stages = {
        place: SimulatedStage(seconds=SECONDS[place[0]], needs=stage.needs)
        for place, stage in forecast.graph().stages.items()
    }
    exact = StageGraph(stages=stages, after=forecast.graph().after)
    first = exact.priorities().__getitem__ if longest_first else None
    progress = run_sweep(
        session.expansion.jobs,
        session.room(),
        executor,
        view=View(),
        on_job_end=lambda end: None,
        priority=forecast.priority if longest_first else None,
    )
    assert len(progress.executed) == len(stages)
    assert executor.now == simulate(exact, executor.nodes, priority=first)
    assert executor.now >= exact.lower_bound_s(executor.nodes)
