"""From jobs to stages: which are distinct, which are done, which are shared. No side effects."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from files.reading import warn_damaged
from iac_core.backbones import build_backbone
from iac_core.backbones.external import ExternalSettings
from iac_core.backbones.nnunet_unet import NnunetSettings
from iac_core.errors import ConfigError
from iac_core.training.kept_features import feature_bytes
from workers.failures import vain_attempts
from workers.job import Job
from workers.run_stage import Failure
from workers.stage_store import StageRecord, StageStore
from workers.tasks import STAGE_VERSIONS, DataSource, StageTask, chain, stage_tasks

STAGE_KINDS: tuple[str, ...] = tuple(STAGE_VERSIONS)
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
        self._genotypes: dict[str, str] = {}

    def get(self, task: StageTask) -> StageRecord | None:
        """Return the record of a finished stage, or None."""
        known = self._records.get((task.kind, task.key))
        if known is None:
            if task.key in self._stored(task.kind):
                known = self.store.record(task.kind, task.key)
            if known is not None and task.kind == "search" and "genotype" not in known.outcome:
                name = f"{self.store.root}/search/{task.key}"
                warn_damaged(name, "must have a genotype in its manifest")
                return None
            if known is not None:
                self.add(known)
        return known

    def read_ahead(self, jobs: Sequence[Job], sources: Mapping[str, DataSource]) -> None:
        """Read the manifests of a sweep many at a time, where a single one takes long.

        Args:
            jobs: The sweep's jobs.
            sources: Dataset → its folder.
        """
        if not self.store.place.is_remote:
            return
        for _ in range(2):  # keys of what follows a search are known once its record is
            wanted: dict[str, set[str]] = {}
            for job in jobs:
                for task in stage_tasks(job, sources[job.dataset], self._genotypes):
                    if (task.kind, task.key) not in self._records:
                        wanted.setdefault(task.kind, set()).add(task.key)
            for kind, keys in wanted.items():
                for record in self.store.records(kind, keys & self._stored(kind)):
                    self.add(record)

    def _stored(self, kind: str) -> frozenset[str]:
        if kind not in self._on_disk:
            self._on_disk[kind] = self.store.keys(kind)
        return self._on_disk[kind]

    def add(self, record: StageRecord) -> None:
        """Remember the record of a finished stage, without what its key already says."""
        self._records[(record.kind, record.key)] = replace(record, settings={}, files=None)
        if record.kind == "search":
            self._genotypes[record.key] = str(record.outcome["genotype"])

    def forget(self, kind: str, key: str) -> None:
        """Ask the store again for a stage: what was known of it does not hold any more."""
        self._records.pop((kind, key), None)
        self._genotypes.pop(key, None)

    def genotypes(self) -> Mapping[str, str]:
        """Return key → genotype of the finished searches that were asked for so far."""
        return self._genotypes


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """Where a job stands.

    Attributes:
        job: The job.
        tasks: Its stages whose keys are known, in order.
        next_task: The first of them that is not done; None if the job is complete.
        n_stages: Stages in the job's chain, known or not.
    """

    job: Job
    tasks: tuple[StageTask, ...]
    next_task: StageTask | None
    n_stages: int

    @property
    def is_done(self) -> bool:
        """Whether every stage is whole."""
        return self.next_task is None


def job_state(job: Job, source: DataSource, records: KnownRecords) -> JobState:
    """Return where a job stands, asking the store for each of its stages in turn."""
    tasks = stage_tasks(job, source, records.genotypes())
    search = next((task for task in tasks if task.kind == "search"), None)
    if search is not None and search.key not in records.genotypes() and records.get(search):
        tasks = stage_tasks(job, source, records.genotypes())
    missing = next((task for task in tasks if records.get(task) is None), None)
    return JobState(job=job, tasks=tasks, next_task=missing, n_stages=len(chain(job.control)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a sweep needs.

    Attributes:
        states: Every job, in the sweep's order.
        sources: Dataset → its folder.
        done: ``(kind, key)`` of the distinct stages that are whole.
        missing: Those whose keys are known and that are not.
        n_undetermined: Kind → stages whose keys depend on a genotype that is not found yet.
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
        not known yet count as distinct: two searches may still find one genotype.
        """
        wanted = Counter(kind for state in self.states for kind in chain(state.job.control))
        rows: list[dict[str, int | str]] = []
        for kind in STAGE_KINDS:
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
        searches = "search" in chain(job.control) and not state.is_done
        keeps = job.settings.search.keep_features and not job.settings.augmentation.enabled
        # nnU-Net's network follows from its preparation; the user's own is run whole.
        is_unknown = isinstance(job.settings.backbone, NnunetSettings | ExternalSettings)
        if key in found or not searches or not keeps or is_unknown:
            continue
        prepared = records.get(state.tasks[0])
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
        task = state.next_task
        if task is None or (task.kind, task.key) in seen:
            continue
        seen.add((task.kind, task.key))
        attempts = store.ended_attempts(task.kind, task.key)
        if attempts and attempts[-1]["outcome"] in ("failed", "lost"):
            kind, _, error = _cause(attempts[-1]).partition(": ")
            is_quarantined = len(vain_attempts(attempts)) >= quarantine_after
            place = (kind, task.kind, error, is_quarantined)
            groups.setdefault(place, []).append(state.job.job_id)
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
    records.read_ahead(jobs, sources)
    states = tuple(job_state(job, sources[job.dataset], records) for job in jobs)
    done: set[tuple[str, str]] = set()
    missing: set[tuple[str, str]] = set()
    undetermined: Counter[str] = Counter()
    for state in states:
        for task in state.tasks:
            place = (task.kind, task.key)
            (done if records.get(task) is not None else missing).add(place)
        undetermined.update(chain(state.job.control)[len(state.tasks) :])
    return Plan(
        states=states,
        sources=sources,
        done=frozenset(done),
        missing=frozenset(missing),
        n_undetermined=undetermined,
    )
