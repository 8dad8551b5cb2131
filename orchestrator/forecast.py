"""What a sweep will take: seconds, bytes and money of its missing stages, and when it will end."""

import math
import shutil
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.cluster import Node, n_places, requested
from orchestrator.costs import CostModel, Question, Total, observation_of, question_of
from orchestrator.plan import JobState, KnownRecords, Plan
from orchestrator.resources import ResourceSettings
from orchestrator.simulation import SimulatedStage, StageGraph, StageId, simulate
from workers.job import Job
from workers.provenance import is_gpu
from workers.stage_store import StageRecord
from workers.stages.prepare import PREPARE
from workers.stages.table import STAGES
from workers.task import StageTask
from workers.work import DataSize

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
            for kind in STAGES
        }
        self.questions: dict[StageId, Question] = {}
        self.jobs: dict[StageId, Job] = {}
        self.stages_of: dict[str, tuple[StageId, ...]] = {}
        self._after: dict[StageId, tuple[StageId, ...]] = {}
        self.data: dict[str, DataSize] = {}
        self._prepared: dict[str, StageRecord] = {}
        self._done: set[StageId] = set()
        self._planned: dict[StageId, StageId] = {}
        self._priorities: dict[StageId, float] = {}
        for state in plan.states:
            places = self._missing_of(state)
            if not places:
                continue
            self.stages_of[state.job.job_id] = tuple(places.values())
            data = self._size_of(state.graph.tasks.get(PREPARE.name), records)
            for step in state.graph.steps:
                place = places.get(step.role)
                if place is None or place in self.questions:
                    continue
                self.jobs[place] = state.job
                self._after[place] = tuple(
                    places[role] for role in dict.fromkeys(step.after) if role in places
                )
                on_gpu = bool(self.needs[step.kind].gpus)
                self.questions[place] = question_of(
                    step.kind,
                    state.job,
                    device=device if on_gpu == is_gpu(device) else "",
                    on_gpu=on_gpu,
                    is_exclusive=resources.is_exclusive(step.kind),
                    data=data,
                )

    def _missing_of(self, state: JobState) -> dict[str, StageId]:
        """Role → what is still to be computed for a job, in order."""
        missing = {task.role for task in state.missing}
        places = {}
        for step in state.graph.steps:
            task = state.graph.tasks.get(step.role)
            if task is None:
                places[step.role] = (step.kind, _until_known(state.job.job_id, step.role))
            elif step.role in missing:
                places[step.role] = task.id
        return places

    def _size_of(self, prepare: StageTask | None, records: KnownRecords) -> DataSize:
        if prepare is None:
            return DataSize()
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
        self._planned[task.id] = (task.kind, _until_known(task.owner.job_id, task.role))

    def note_end(self, task: StageTask, record: StageRecord, *, was_computed: bool) -> None:
        """Learn from a stage that is whole now."""
        if task.kind == PREPARE.name:
            self._prepared[task.key] = record
        self._done |= {task.id, (task.kind, _until_known(task.owner.job_id, task.role))}
        parent = task.parent(PREPARE.name)
        prepared = self._prepared.get(task.key if parent is None else parent.key)
        observation = observation_of(record, prepared) if was_computed else None
        if observation is not None:
            self.model.add(observation)

    def by_kind(self) -> tuple[KindForecast, ...]:
        """Return a row for each kind that has something to run."""
        found = []
        for kind in STAGES:
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
        stages: dict[StageId, SimulatedStage] = {}
        for job_id, places in self.stages_of.items():
            for place in () if job_id in ended else places:
                if place not in stages and place not in self._done:
                    seconds = self._seconds(self.questions[place], unknown_s)
                    begun = begun_s.get(place, 0.0)
                    # What has taken longer than thought is seldom just about to end.
                    least = _SHARE_LEFT_AT_LEAST * max(seconds, begun)
                    stages[place] = SimulatedStage(
                        seconds=max(seconds - begun, least),
                        needs=self.needs[place[0]],
                    )
        after = {
            place: [before for before in self._after[place] if before in stages]
            for place in stages
        }
        return StageGraph(stages=stages, after=after)

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
        known = self._priorities.get(task.id)
        unknown = (task.kind, _until_known(task.owner.job_id, task.role))
        return self._priorities.get(unknown, 0.0) if known is None else known

    def _seconds(self, question: Question, unknown_s: float) -> float:
        found = self.model.answer(question)
        return unknown_s if found is None else found.seconds * math.exp(found.stage_sd**2 / 2)


def _until_known(job_id: str, role: str) -> str:
    """Stands for the key of a stage that waits for what another one of its job finds."""
    return f"{role} of job {job_id}"


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
