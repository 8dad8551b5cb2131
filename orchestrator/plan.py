"""From jobs to stages: which are distinct, which are done, which are shared. No side effects."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from files.reading import warn_damaged
from iac_core.backbones import build_backbone
from iac_core.backbones.external import ExternalSettings
from iac_core.errors import ConfigError
from iac_core.training.kept_features import feature_bytes
from workers.failures import vain_attempts
from workers.job import Job
from workers.recipes import recipe_of
from workers.run_stage import Failure
from workers.stage_store import StageRecord, StageStore
from workers.stages.table import STAGES
from workers.task import DataSource, Outcome, StageTask
from workers.task_graph import JobGraph

_MOST_CAUSES = 3


class KnownRecords:
    """Manifests of finished stages, each read once.

    What others finish after a kind of stage was first asked for is not seen: ten thousand missing
    stages would be ten thousand looks at the disk. A worker that is given such a stage sees it.

    Args:
        store: Where stages lie.
    """

    def __init__(self, store: StageStore) -> None:
        self.store = store
        self._records: dict[tuple[str, str], StageRecord] = {}
        self._on_disk: dict[str, frozenset[str]] = {}

    def get(self, task: StageTask) -> StageRecord | None:
        """Return the record of a finished stage, or None."""
        known = self._records.get(task.id)
        if known is None and task.key in self._stored(task.kind):
            known = self.store.record(task.kind, task.key)
            if known is not None and self._keeps_promises(known):
                self.add(known)
            else:
                known = None
        return known

    def outcome(self, task: StageTask) -> Outcome | None:
        """Return what a finished stage returned, or None."""
        record = self.get(task)
        return None if record is None else record.outcome

    def read_ahead(self, graphs: Iterable[JobGraph]) -> None:
        """Read the manifests of a sweep many at a time, where a single one takes long.

        Args:
            graphs: The sweep's jobs; they are grown.
        """
        if not self.store.place.is_remote:
            return
        asked: set[tuple[str, str]] = set()
        while True:  # keys of what follows a search are known once its record is
            wanted: dict[str, set[str]] = {}
            for graph in graphs:
                graph.grow(self._outcome_read)
                for task in graph.tasks.values():
                    if task.id not in self._records and task.id not in asked:
                        wanted.setdefault(task.kind, set()).add(task.key)
            if not wanted:
                return
            for kind, keys in wanted.items():
                asked |= {(kind, key) for key in keys}
                for record in self.store.records(kind, keys & self._stored(kind)):
                    if self._keeps_promises(record):
                        self.add(record)

    def add(self, record: StageRecord) -> None:
        """Remember the record of a finished stage, without what its key already says."""
        self._records[(record.kind, record.key)] = replace(record, settings={}, files=None)

    def forget(self, kind: str, key: str) -> None:
        """Ask the store again for a stage: what was known of it does not hold any more."""
        self._records.pop((kind, key), None)

    def _outcome_read(self, task: StageTask) -> Outcome | None:
        record = self._records.get(task.id)
        return None if record is None else record.outcome

    def _keeps_promises(self, record: StageRecord) -> bool:
        """Whether a manifest holds what later keys are made of, which an older one may not."""
        missing = [n for n in STAGES[record.kind].promises if n not in record.outcome]
        if missing:
            name = f"{self.store.root}/{record.kind}/{record.key}"
            warn_damaged(name, f"must have {' and '.join(missing)} in its manifest")
        return not missing

    def _stored(self, kind: str) -> frozenset[str]:
        if kind not in self._on_disk:
            self._on_disk[kind] = self.store.keys(kind)
        return self._on_disk[kind]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """Where a job stands.

    Attributes:
        graph: The job's stages.
        tasks: Those whose keys are known, each after those it builds on; the last is the job's
            evaluation once it is among them.
        missing: Those of them that are to be computed.
        ready: Those of them that can be computed now: all that they build on is whole.
        wanted: Kinds of the stages that the job needs or has, known or not.
        n_unknown: How many of a kind have no key yet.
    """

    graph: JobGraph
    tasks: tuple[StageTask, ...]
    missing: tuple[StageTask, ...]
    ready: tuple[StageTask, ...]
    wanted: tuple[str, ...]
    n_unknown: Mapping[str, int]

    @property
    def job(self) -> Job:
        """The job."""
        return self.graph.job

    @property
    def is_done(self) -> bool:
        """Whether every stage that the job needs is whole."""
        return not self.missing and not self.n_unknown


def state_of(graph: JobGraph, records: KnownRecords) -> JobState:
    """Return where a job stands, asking the store for its stages; the graph grows."""
    graph.grow(records.outcome)
    tasks = tuple(graph.tasks.values())
    whole = {task.id for task in tasks if records.get(task) is not None}
    unknown = [step for step in graph.steps if step.role not in graph.tasks]
    needed = {
        graph.tasks[role].id for step in unknown for role in step.after if role in graph.tasks
    }
    missing: list[StageTask] = []
    for task in reversed(tasks):
        is_needed = task.id in needed or not STAGES[task.kind].is_on_demand
        if is_needed and task.id not in whole:
            missing.insert(0, task)
            needed |= {(parent.kind, parent.key) for parent in task.parents}
    wanted = {task.id for task in missing} | whole
    ready = [
        task
        for task in missing
        if all((parent.kind, parent.key) in whole for parent in task.parents)
    ]
    return JobState(
        graph=graph,
        tasks=tasks,
        missing=tuple(missing),
        ready=tuple(ready),
        wanted=(
            *(task.kind for task in tasks if task.id in wanted),
            *(step.kind for step in unknown),
        ),
        n_unknown=Counter(step.kind for step in unknown),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a sweep needs.

    Attributes:
        states: Every job, in the sweep's order.
        sources: Dataset → its folder.
        done: ``(kind, key)`` of the distinct stages that are whole.
        missing: Those that are to be computed and whose keys are known.
        n_undetermined: Kind → stages whose keys depend on an outcome that is not known yet.
    """

    states: tuple[JobState, ...]
    sources: Mapping[str, DataSource]
    done: frozenset[tuple[str, str]]
    missing: frozenset[tuple[str, str]]
    n_undetermined: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_provisional(self) -> bool:
        """Whether a data folder was not at hand, so that keys will change."""
        return any(not source.fingerprint for source in self.sources.values())

    def counts(self) -> list[dict[str, int | str]]:
        """Return a row per kind: ``kind``, ``wanted``, ``distinct``, ``done``, ``to_run``.

        ``wanted`` counts every job's stages, ``distinct`` each stage once. Stages whose keys are
        not known yet count as distinct: two searches may still find one genotype. A kind that is
        computed on demand counts where it is needed or there.
        """
        wanted = Counter(kind for state in self.states for kind in state.wanted)
        rows: list[dict[str, int | str]] = []
        for kind in STAGES:
            done = sum(1 for found, _ in self.done if found == kind)
            missing = sum(1 for found, _ in self.missing if found == kind)
            unknown = self.n_undetermined.get(kind, 0)
            rows.append(
                {
                    "kind": kind,
                    "wanted": wanted[kind],
                    "distinct": done + missing + unknown,
                    "done": done,
                    "to_run": missing + unknown,
                }
            )
        return rows


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptFeatureSize:
    """What the searches of a backbone keep in a temporary file while they run.

    Attributes:
        dataset: Dataset.
        backbone: Backbone.
        mib_per_slice: MiB for a slice.
        n_slices: Slices that training may use, an upper bound; None until they are prepared.
    """

    dataset: str
    backbone: str
    mib_per_slice: float
    n_slices: int | None


def kept_feature_sizes(
    plan: Plan, records: KnownRecords, *, where: str
) -> tuple[KeptFeatureSize, ...]:
    """Return a row per dataset and backbone that a search with kept features is to run on.

    Args:
        plan: What the sweep needs.
        records: Of finished stages.
        where: The sweep file, for messages.

    Raises:
        ConfigError: If a network cannot be built, or cannot take slices of the size that is set.
    """
    found: dict[tuple[str, str], KeptFeatureSize] = {}
    sizes: dict[tuple[str, int], float] = {}
    for state in plan.states:
        job = state.job
        key = (job.dataset, job.backbone)
        searches = state.graph.arm.searches and not state.is_done
        keeps = job.settings.search.keep_features and not job.settings.augmentation.enabled
        # The user's own network is run whole.
        is_unknown = (
            isinstance(job.settings.backbone, ExternalSettings)
            or recipe_of(job.settings.backbone).network_follows_from_data
        )
        if key in found or not searches or not keeps or is_unknown:
            continue
        prepared = records.get(state.graph.tasks["prepare"])
        # Sizes of features depend neither on image channels nor on classes.
        place = (job.backbone, job.settings.prepare.size)
        if place not in sizes:
            sizes[place] = _kept_mib(job, where)
        found[key] = KeptFeatureSize(
            dataset=job.dataset,
            backbone=job.backbone,
            mib_per_slice=sizes[place],
            n_slices=None if prepared is None else prepared.outcome["n_training_slices"],
        )
    return tuple(found.values())


def _kept_mib(job: Job, where: str) -> float:
    """MiB that the features of a slice take, of a network without memory of its own."""
    size = job.settings.prepare.size
    try:
        with torch.device("meta"):
            backbone = build_backbone(job.settings.backbone, n_channels=1, n_classes=2, seed=0)
        return feature_bytes(backbone, size) / 2**20
    except (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"{where}: the backbone {job.backbone} must suit slices of prepare.size = {size}",
            value=reason,
            way_out="give it fewer levels or larger slices",
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureGroup:
    """Stages whose last attempt failed in the same way.

    Attributes:
        kind: Kind of failure (`workers.failures`).
        stage: Kind of stage.
        error: First line of the message.
        n: How many stages.
        job_id: The first job that waits for one of them.
        is_quarantined: Whether `run` does not try them any more unless told to.
    """

    kind: str
    stage: str
    error: str
    n: int
    job_id: str
    is_quarantined: bool = False


def quarantine(task: StageTask, store: StageStore, after: int) -> Failure | None:
    """Return why a stage is not tried any more: too many attempts in a row were in vain.

    Args:
        task: The stage.
        store: Where its attempts lie.
        after: Attempts in vain (`workers.failures.vain_attempts`) that are too many.
    """
    attempts = store.ended_attempts(task.kind, task.key)
    vain = vain_attempts(attempts)
    if len(vain) < after:
        return None
    causes = Counter(_cause(attempt) for attempt in vain)
    said = ", ".join(f"{n} × {cause}" for cause, n in causes.most_common(_MOST_CAUSES))
    return Failure(
        stage=task.kind,
        key=task.key,
        epoch=max(attempt["epoch"] for attempt in attempts),
        error=f"{task.kind} must get further within resources.quarantine_after = {after} "
        f"attempts, got {len(vain)} in a row in vain ({said}); mend the cause, then `run --again` "
        "tries it again, with --job ID this job alone",
        trace=str(vain[-1].get("trace", "")),
        kind="quarantined",
    )


def _cause(attempt: Mapping[str, Any]) -> str:
    """Kind and first line of how an attempt ended."""
    kind = str(attempt.get("kind", "lost" if attempt["outcome"] == "lost" else "code"))
    lines = str(attempt.get("error", "")).splitlines()
    return f"{kind}: {lines[0]}" if lines else kind


def failure_groups(
    plan: Plan, store: StageStore, *, quarantine_after: int
) -> tuple[FailureGroup, ...]:
    """Return the failures that a plan's jobs ended with, the most frequent first.

    Args:
        plan: The plan.
        store: Where attempts lie.
        quarantine_after: Of the sweep's resources.
    """
    seen: set[tuple[str, str]] = set()
    groups: dict[tuple[str, str, str, bool], list[str]] = {}
    for state in plan.states:
        for task in state.ready:
            if task.id in seen:
                continue
            seen.add(task.id)
            attempts = store.ended_attempts(task.kind, task.key)
            if attempts and attempts[-1]["outcome"] in ("failed", "lost"):
                kind, _, error = _cause(attempts[-1]).partition(": ")
                is_quarantined = len(vain_attempts(attempts)) >= quarantine_after
                group = (kind, task.kind, error, is_quarantined)
                groups.setdefault(group, []).append(state.job.job_id)
    found = [
        FailureGroup(
            kind=kind,
            stage=stage,
            error=error,
            n=len(jobs),
            job_id=jobs[0],
            is_quarantined=is_quarantined,
        )
        for (kind, stage, error, is_quarantined), jobs in groups.items()
    ]
    return tuple(sorted(found, key=lambda group: -group.n))


def make_plan(jobs: Sequence[Job], sources: Mapping[str, DataSource], store: StageStore) -> Plan:
    """Look up what of a sweep is done.

    Args:
        jobs: The sweep's jobs.
        sources: Dataset → its folder.
        store: Where stages lie.
    """
    records = KnownRecords(store)
    graphs = [JobGraph(job, sources[job.dataset]) for job in jobs]
    records.read_ahead(graphs)
    states = tuple(state_of(graph, records) for graph in graphs)
    undetermined: Counter[str] = Counter()
    for state in states:
        undetermined.update(state.n_unknown)
    missing = {task.id for state in states for task in state.missing}
    return Plan(
        states=states,
        sources=sources,
        done=frozenset(
            task.id for state in states for task in state.tasks if records.get(task) is not None
        ),
        missing=frozenset(missing),
        n_undetermined=undetermined,
    )
