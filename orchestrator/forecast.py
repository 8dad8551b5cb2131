"""What a sweep will take: seconds, bytes and money of its missing stages, and when it will end."""

import math
import shutil
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.cluster import Node, n_places, requested
from orchestrator.costs import CostModel, DataSize, Question, Total, observation_of, question_of
from orchestrator.plan import STAGE_KINDS, KnownRecords, Plan
from orchestrator.resources import ResourceSettings
from orchestrator.simulation import SimulatedStage, StageGraph, StageId, simulate
from workers.job import Job
from workers.provenance import is_gpu
from workers.stage_store import StageRecord
from workers.tasks import StageTask, chain

_MOST_SIMULATED_WHILE_RUNNING = 3000
_SHARE_LEFT_AT_LEAST = 0.1
_S_PER_H = 3600.0

NOTHING_OBSERVED = "nothing observed"


@dataclass(frozen=True, slots=True, kw_only=True)
class KindForecast:
    """What the missing stages of a kind will take.

    Attributes:
        kind: The kind.
        hours: Device hours: of GPUs if the stages reserve any, else of CPUs.
        on_gpus: Which of the two.
        n_bytes: What they will leave on the disk; None if that was never observed.
        groups: What answered: the name of the group's level → stages.
    """

    kind: str
    hours: Total
    on_gpus: bool
    n_bytes: float | None
    groups: Mapping[str, int]


class Forecast:
    """What is left of a sweep; learns from stages as they end.

    Args:
        plan: What the sweep needed when it was made.
        records: The manifests that it found.
        model: What stages cost.
        resources: What stages reserve.
        nodes: The machines.
        device: Model of the device that stages run on; empty if unknown, then any GPU counts, or
            any CPU.
    """

    def __init__(
        self,
        plan: Plan,
        records: KnownRecords,
        model: CostModel,
        *,
        resources: ResourceSettings,
        nodes: Sequence[Node],
        device: str = "",
    ) -> None:
        self.model, self.nodes = model, nodes
        has_gpus = any(node.gpus for node in nodes)
        self.needs = {
            kind: requested(
                resources.for_kind(kind, has_gpus=has_gpus),
                nodes,
                is_exclusive=resources.is_exclusive(kind),
            )
            for kind in STAGE_KINDS
        }
        self.questions: dict[StageId, Question] = {}
        self.jobs: dict[StageId, Job] = {}
        self.chains: dict[str, tuple[StageId, ...]] = {}
        self.data: dict[str, DataSize] = {}
        self._prepared: dict[str, StageRecord] = {}
        self._done: set[StageId] = set()
        self._planned: dict[StageId, StageId] = {}
        self._priorities: dict[StageId, float] = {}
        for state in plan.states:
            job, known, places = state.job, {task.kind: task for task in state.tasks}, []
            data = self._size_of(state.tasks[0], records)
            for kind in chain(job.control):
                task = known.get(kind)
                if task is not None and (kind, task.key) in plan.done:
                    continue
                place = (kind, _until_known(state.job.job_id) if task is None else task.key)
                places.append(place)
                if place not in self.questions:
                    self.jobs[place] = job
                    on_gpu = bool(self.needs[kind].gpus)
                    self.questions[place] = question_of(
                        kind,
                        job,
                        device=device if on_gpu == is_gpu(device) else "",
                        on_gpu=on_gpu,
                        is_exclusive=resources.is_exclusive(kind),
                        data=data,
                    )
            if places:
                self.chains[job.job_id] = tuple(places)

    def _size_of(self, prepare: StageTask, records: KnownRecords) -> DataSize:
        if prepare.key not in self.data:
            found = records.get(prepare)
            outcome = {} if found is None else found.outcome
            names = ("n_volumes", "n_slices", "n_training_slices")
            self.data[prepare.key] = DataSize(**{name: outcome.get(name) for name in names})
            if found is not None:
                self._prepared[prepare.key] = found
        return self.data[prepare.key]

    def note_submitted(self, task: StageTask) -> None:
        """Learn the key of a stage, which was not known before its job's genotype was."""
        self._planned[(task.kind, task.key)] = (task.kind, _until_known(task.job.job_id))

    def note_end(self, task: StageTask, record: StageRecord, *, was_computed: bool) -> None:
        """Learn from a stage that is whole now."""
        if task.kind == "prepare":
            self._prepared[task.key] = record
        self._done |= {(task.kind, task.key), (task.kind, _until_known(task.job.job_id))}
        prepared = self._prepared.get(task.parents.get("prepare", task.key))
        observation = observation_of(record, prepared) if was_computed else None
        if observation is not None:
            self.model.add(observation)

    def by_kind(self) -> tuple[KindForecast, ...]:
        """Return a row for each kind that has something to run."""
        found = []
        for kind in STAGE_KINDS:
            wanted = Counter(one for place, one in self.questions.items() if place[0] == kind)
            if not wanted:
                continue
            needs = self.needs[kind]
            groups: Counter[str] = Counter()
            sizes = []
            for question, n in wanted.items():
                answer = self.model.answer(question)
                groups[NOTHING_OBSERVED if answer is None else answer.group] += n
                sizes.append((n, self.model.bytes_of(question)))
            known = [n * size for n, size in sizes if size is not None]
            found.append(
                KindForecast(
                    kind=kind,
                    hours=_scaled(
                        self.model.total_seconds(wanted),
                        (needs.gpus or needs.cpus) / _S_PER_H,
                    ),
                    on_gpus=bool(needs.gpus),
                    n_bytes=sum(known) if len(known) == len(sizes) else None,
                    groups=groups,
                )
            )
        return tuple(found)

    def graph(
        self,
        ended: Collection[str] = (),
        begun_s: Mapping[StageId, float] | None = None,
        *,
        unknown_s: float = 0.0,
    ) -> StageGraph:
        """Return what is left to run.

        Args:
            ended: Jobs that are done or have failed.
            begun_s: Stage → seconds since a worker has begun it.
            unknown_s: Seconds of a stage of whose kind nothing was observed.
        """
        given = begun_s or {}
        begun_s = {self._planned.get(place, place): given[place] for place in given} | dict(given)
        chains, stages = [], {}
        for job_id, places in self.chains.items():
            left = [place for place in places if place not in self._done]
            if job_id in ended or not left:
                continue
            chains.append(left)
            for place in left:
                if place not in stages:
                    seconds = self._seconds(self.questions[place], unknown_s)
                    begun = begun_s.get(place, 0.0)
                    # What has taken longer than thought is seldom just about to end.
                    least = _SHARE_LEFT_AT_LEAST * max(seconds, begun)
                    stages[place] = SimulatedStage(
                        seconds=max(seconds - begun, least),
                        needs=self.needs[place[0]],
                    )
        return StageGraph(stages=stages, chains=chains)

    def seconds_left(
        self,
        ended: Collection[str] = (),
        begun_s: Mapping[StageId, float] | None = None,
        *,
        most_simulated: float = math.inf,
    ) -> Total:
        """Return wall-clock seconds to the end of the sweep on these machines.

        Args:
            ended: Jobs that are done or have failed.
            begun_s: Stage → seconds since a worker has begun it.
            most_simulated: With more stages left the lower bound stands in for the simulation.
        """
        graph = self.graph(ended, begun_s)
        needs = {stage.needs for stage in graph.stages.values()}
        # A machine that large may still join.
        fits = all(n_places(self.nodes, each) for each in needs)
        if fits and len(graph.stages) <= most_simulated:
            seconds = simulate(graph, self.nodes, priority=graph.priorities().__getitem__)
        else:
            seconds = graph.lower_bound_s(self.nodes)
        work = self.model.total_seconds(Counter(self.questions[place] for place in graph.stages))
        if not work.value:
            return replace(work, value=0.0)
        return replace(
            work,
            value=seconds,
            low=seconds * work.low / work.value,
            high=seconds * work.high / work.value,
        )

    def seconds_left_while_running(
        self, ended: Collection[str], begun_s: Mapping[StageId, float]
    ) -> Total:
        """As `seconds_left`, in well under a second however many stages are left."""
        return self.seconds_left(ended, begun_s, most_simulated=_MOST_SIMULATED_WHILE_RUNNING)

    def priority(self, task: StageTask) -> float:
        """Return the seconds of the longest chain that began with a stage when it was planned."""
        if not self._priorities:
            self._priorities = self.graph(unknown_s=1.0).priorities()
        known = self._priorities.get((task.kind, task.key))
        unknown = (task.kind, _until_known(task.job.job_id))
        return self._priorities.get(unknown, 0.0) if known is None else known

    def _seconds(self, question: Question, unknown_s: float) -> float:
        found = self.model.answer(question)
        return unknown_s if found is None else found.seconds * math.exp(found.stage_sd**2 / 2)


def _until_known(job_id: str) -> str:
    """Stands for the key of a stage that waits for its job's genotype."""
    return f"of job {job_id}"


def _scaled(total: Total, factor: float) -> Total:
    return replace(
        total, value=total.value * factor, low=total.low * factor, high=total.high * factor
    )


def added(totals: Sequence[Total]) -> Total:
    """Return the sum of totals that may err alike: their bounds add up."""
    return Total(
        value=sum(one.value for one in totals),
        low=sum(one.low for one in totals),
        high=sum(one.high for one in totals),
        n=sum(one.n for one in totals),
        n_unknown=sum(one.n_unknown for one in totals),
    )


def free_bytes(folder: Path) -> int:
    """Return the free bytes of the disk on which a folder lies or would be made."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
