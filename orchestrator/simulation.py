"""A sweep played through by discrete events: when each stage would run, and how long it all takes.

The order is that of `orchestrator.run_sweep`: a stage is handed in once, when all that it builds
on is whole, and the waiting stage with the highest priority that fits a machine starts.
"""

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.cluster import Node, n_places
from orchestrator.resources import StageResources

StageId = tuple[str, str]
"""Kind and key of a stage, or kind and job where the key is not known yet."""
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedStage:
    """A stage to run: its seconds and what it reserves."""

    seconds: float
    needs: StageResources


@dataclass(frozen=True, slots=True, kw_only=True)
class StageGraph:
    """What is to run.

    Attributes:
        stages: Every distinct stage that is missing, each after those it waits for.
        after: Stage → those of them that it waits for; it may lack stages that wait for none.
    """

    stages: Mapping[StageId, SimulatedStage]
    after: Mapping[StageId, Sequence[StageId]]

    def priorities(self) -> dict[StageId, float]:
        """Return for every stage the seconds of the longest chain that begins with it."""
        behind: dict[StageId, float] = {}
        longest: dict[StageId, float] = {}
        for place in reversed(list(self.stages)):
            longest[place] = self.stages[place].seconds + behind.get(place, 0.0)
            for before in self.after.get(place, ()):
                behind[before] = max(behind.get(before, 0.0), longest[place])
        return longest

    def work_s(self) -> float:
        """Return the seconds of all stages, one after the other."""
        return sum(stage.seconds for stage in self.stages.values())

    def lower_bound_s(self, nodes: Sequence[Node]) -> float:
        """Return what no order can beat: the longest chain, or the work over the places for it.

        The work is that of the stages that need a GPU over the GPUs, or of all over the CPUs.
        """
        bounds = [max(self.priorities().values(), default=0.0)]
        gpus, cpus = sum(node.gpus for node in nodes), sum(node.cpus for node in nodes)
        stages = self.stages.values()
        bounds.append(sum(one.seconds * one.needs.cpus for one in stages) / cpus)
        if gpus:
            bounds.append(sum(one.seconds * (one.needs.gpus or 0.0) for one in stages) / gpus)
        return max(bounds)


@dataclass(slots=True)
class _Free:
    """What is left of a machine."""

    cpus: float
    gpus: float
    memory_gib: float
    accelerator: str | None

    def holds(self, needs: StageResources) -> bool:
        return (
            needs.accelerator in (None, self.accelerator)
            and self.cpus + _ROUNDING >= needs.cpus
            and self.gpus + _ROUNDING >= (needs.gpus or 0.0)
            and self.memory_gib + _ROUNDING >= (needs.memory_gib or 0.0)
        )

    def give(self, needs: StageResources, sign: float) -> None:
        self.cpus -= sign * needs.cpus
        self.gpus -= sign * (needs.gpus or 0.0)
        self.memory_gib -= sign * (needs.memory_gib or 0.0)


@dataclass(slots=True)
class _Waiting:
    """Stages with the same needs, and the machines that may have room for one."""

    heap: list[tuple[float, int, StageId]] = field(default_factory=list)
    candidates: list[int] = field(default_factory=list)


def simulate(
    graph: StageGraph,
    nodes: Sequence[Node],
    *,
    priority: Callable[[StageId], float] | None = None,
) -> float:
    """Return the seconds from start to end of everything.

    Args:
        graph: What is to run.
        nodes: The machines; every stage must fit one.
        priority: Of a stage, the highest starts first; None takes them as they come.
    """
    run = _Simulation(graph, nodes, priority or (lambda place: 0.0))
    return run.to_the_end()


class _Simulation:
    """State of `simulate`."""

    def __init__(
        self, graph: StageGraph, nodes: Sequence[Node], priority: Callable[[StageId], float]
    ) -> None:
        self.graph, self.priority = graph, priority
        self.free = [
            _Free(
                node.cpus,
                node.gpus,
                float("inf") if node.memory_gib is None else node.memory_gib,
                node.accelerator,
            )
            for node in nodes
        ]
        self.waiting: dict[StageResources, _Waiting] = {}
        self.n_awaited = {place: len(graph.after.get(place, ())) for place in graph.stages}
        self.then: dict[StageId, list[StageId]] = {}
        for place in graph.stages:
            for before in graph.after.get(place, ()):
                self.then.setdefault(before, []).append(place)
        self.ends: list[tuple[float, int, StageId, int]] = []
        self.now, self.n = 0.0, 0
        for needs in {stage.needs for stage in graph.stages.values()}:
            if n_places(nodes, needs) == 0:
                raise ValueError(f"every stage must fit a machine, got {needs}")

    def to_the_end(self) -> float:
        for place, n in self.n_awaited.items():
            if n == 0:
                self.hand_in(place)
        self.start()
        while self.ends:
            self.now = self.ends[0][0]
            while self.ends and self.ends[0][0] <= self.now:
                _, _, place, node = heapq.heappop(self.ends)
                self.end(place, node)
            self.start()
        return self.now

    def hand_in(self, place: StageId) -> None:
        """Let a stage wait for a machine."""
        needs = self.graph.stages[place].needs
        if needs not in self.waiting:
            self.waiting[needs] = _Waiting(candidates=list(range(len(self.free)))[::-1])
        heapq.heappush(self.waiting[needs].heap, (-self.priority(place), self.n, place))
        self.n += 1

    def start(self) -> None:
        """Start what fits, the highest priority first."""
        while True:
            heads = sorted(
                (queue.heap[0][:2], index, needs)
                for index, (needs, queue) in enumerate(self.waiting.items())
                if queue.heap and self.node_for(needs) is not None
            )
            if not heads:
                return
            needs = heads[0][2]
            queue = self.waiting[needs]
            _, _, place = heapq.heappop(queue.heap)
            node = queue.candidates[-1]
            self.free[node].give(needs, 1.0)
            end = self.now + self.graph.stages[place].seconds
            heapq.heappush(self.ends, (end, self.n, place, node))
            self.n += 1

    def node_for(self, needs: StageResources) -> int | None:
        """A machine with room, found by dropping candidates that have none."""
        candidates = self.waiting[needs].candidates
        while candidates and not self.free[candidates[-1]].holds(needs):
            candidates.pop()
        return candidates[-1] if candidates else None

    def end(self, place: StageId, node: int) -> None:
        self.free[node].give(self.graph.stages[place].needs, -1.0)
        for queue in self.waiting.values():
            queue.candidates.append(node)
        for behind in self.then.get(place, ()):
            self.n_awaited[behind] -= 1
            if self.n_awaited[behind] == 0:
                self.hand_in(behind)
