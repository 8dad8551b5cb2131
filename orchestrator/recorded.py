"""Recorded searches: trajectories and measured epochs of a sweep's finished search stages."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from files.encoding import DamagedError, from_json
from iac_core.cells.genotype import Genotype
from iac_core.errors import ConfigError
from iac_core.pruners.epoch_cost import EpochCost, MeasuredEpochs, fit_epoch_cost
from iac_core.pruners.evidence import GRADIENT_SUMS
from iac_core.pruners.replay import RecordedEvidence, Trajectory
from orchestrator.session import Session
from workers.arms import arm_of, is_full_search
from workers.job import Job, content_hash
from workers.stage_record import StageRecord
from workers.stage_store import StageStore
from workers.stages.files import CURVE, TRAJECTORY
from workers.task import StageTask
from workers.task_graph import stage_tasks


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedSearch:
    """A finished search.

    Attributes:
        task: Its stage, with a job that needs it.
        trajectory: Alpha, beta and importance after every epoch; NaN where an operation was gone.
        active: Operations in the graph during each epoch.
        seconds: Of each epoch.
        n_scored_slices: Slices × masks that a pruner had scored after each epoch.
        evidence: Sums of alpha's gradients; None if it was recorded before they were kept.
        genotype: What it found.
        device: Model of its device.
        is_exclusive: Whether it had the device to itself.
    """

    task: StageTask
    alpha: Float[ndarray, "epochs levels edges ops"]
    beta: Float[ndarray, "epochs levels edges"]
    importance: Float[ndarray, "epochs levels edges ops"]
    active: Bool[ndarray, "epochs levels edges ops"]
    operations: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]
    n_weight_steps: Int[ndarray, " epochs"]
    n_architecture_steps: Int[ndarray, " epochs"]
    n_scored_slices: Int[ndarray, " epochs"]
    seconds: Float[ndarray, " epochs"]
    evidence: RecordedEvidence | None
    genotype: Genotype
    device: str
    is_exclusive: bool

    @property
    def n_epochs(self) -> int:
        """Epochs that it ran."""
        return len(self.seconds)

    @property
    def search_s(self) -> float:
        """Seconds of all its epochs."""
        return float(self.seconds.sum())

    @property
    def epoch_equivalents(self) -> float:
        """Epochs of the full search that its own cost, counted in operations."""
        return float(self.active.mean(axis=(1, 2, 3)).sum())

    @property
    def first_removal_epoch(self) -> int | None:
        """Epoch after which the first operation went; None if all stayed to the end."""
        short = np.flatnonzero(~self.active.all(axis=(1, 2, 3)))
        return int(short[0]) - 1 if len(short) else None

    def trajectory(self) -> Trajectory:
        """Return what can be replayed.

        Raises:
            ConfigError: If the search pruned something.
        """
        return Trajectory(
            alpha=self.alpha,
            beta=self.beta,
            importance=self.importance,
            operations=self.operations,
            edges=self.edges,
            search=self.task.job.settings.search,
            n_weight_steps=self.n_weight_steps,
            n_architecture_steps=self.n_architecture_steps,
            seed=self.task.job.seed,
            evidence=self.evidence,
        )

    def measured(self) -> MeasuredEpochs:
        """Return its epochs for the fit of a cost."""
        return MeasuredEpochs.of(
            self.active, self.seconds, self.n_weight_steps, self.n_architecture_steps
        )


def read_search(store: StageStore, task: StageTask) -> RecordedSearch | None:
    """Return a finished search, or None if the stage is not whole or the search has no alpha.

    Args:
        store: Where stages lie.
        task: The stage.
    """
    record = store.record("search", task.key)
    raw = store.read("search", task.key, TRAJECTORY) if record is not None else None
    curve = store.read("search", task.key, CURVE) if record is not None else None
    if record is None or raw is None or curve is None:
        return None
    try:
        return _recorded(task, record, raw, curve)
    except (DamagedError, BadZipFile, EOFError, KeyError, TypeError) as error:
        # Of an older version, without checksums.
        reason = f"{TRAJECTORY} or {CURVE} cannot be read: {error!r}"
        raise store.damaged("search", task.key, reason) from error


def _recorded(task: StageTask, record: StageRecord, raw: bytes, curve: bytes) -> RecordedSearch:
    with np.load(io.BytesIO(raw)) as arrays:
        saved = {name: arrays[name] for name in arrays.files}
    return RecordedSearch(
        task=task,
        **{name: saved[name] for name in ("alpha", "beta", "importance", "active")},
        operations=tuple(saved["operations"].tolist()),
        edges=tuple((int(source), int(target)) for source, target in saved["edges"]),
        **{
            name: saved[name]
            for name in ("n_weight_steps", "n_architecture_steps", "n_scored_slices")
        },
        seconds=np.array([epoch["seconds"] for epoch in from_json(curve, list)]),
        evidence=_evidence(saved),
        genotype=Genotype.from_json(str(record.outcome["genotype"])),
        device=str(record.provenance["device"]),
        is_exclusive=bool(record.outcome["search_exclusive"]),
    )


def _evidence(saved: Mapping[str, ndarray]) -> RecordedEvidence | None:
    """The evidence in the arrays of a search; None if they have none."""
    if "alive_since" not in saved:
        return None
    return RecordedEvidence(
        **{name: saved[name] for name in (*GRADIENT_SUMS, "n_alpha_steps", "alive_since")},
        bound=float(saved["evidence_bound"]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GridCell:
    """Everything of a sweep's jobs but their pruner: what a pruner is judged on.

    Attributes:
        job: The job of the full search.
        full: The full search; None if it is not finished.
        others: Finished searches that differ from it in the pruner alone: pruner → search.
    """

    job: Job
    full: RecordedSearch | None
    others: dict[str, RecordedSearch]

    @property
    def label(self) -> str:
        """A short name for people: ``acdc · unet · seed 0``."""
        return f"{self.job.dataset} · {self.job.backbone} · seed {self.job.seed}"


def grid_cells(session: Session, *, reads: bool = True) -> tuple[GridCell, ...]:
    """Return the cells of a sweep's grid that have a full search, with what is recorded of each.

    Args:
        session: An open sweep.
        reads: Whether recorded searches are read; a cell has none otherwise.

    Raises:
        ConfigError: If no job of the sweep is a full search.
    """
    tasks: dict[str, dict[str, StageTask]] = {}
    for job in session.expansion.jobs:
        if not arm_of(job).searches:
            continue
        search = _search_task(session, job)
        if search is not None:
            tasks.setdefault(identity_without_pruner(search), {})[job.pruner] = search
    cells = []
    for arms in tasks.values():
        full = next((task for task in arms.values() if is_full_search(task.job)), None)
        if full is None:
            continue
        found = {
            name: recorded
            for name, task in arms.items()
            if reads and (recorded := read_search(session.store, task)) is not None
        }
        recorded_full = found.pop(full.job.pruner, None)
        cells.append(GridCell(job=full.job, full=recorded_full, others=found))
    if not cells:
        raise ConfigError(
            f"{session.spec.path}: a sweep to replay must hold the full search",
            value="no pruner of type 'none' in its grid",
            way_out="add it to grid.pruner and run it",
        )
    return tuple(cells)


def identity_without_pruner(search: StageTask) -> str:
    """Hash of everything that a search's result depends on but its pruner."""
    kept = {
        name: value
        for name, value in search.settings.items()
        if name not in ("pruner", "pruner_type")
    }
    return content_hash(kept)


def cost_of_epochs(searches: Sequence[RecordedSearch]) -> EpochCost:
    """Fit what an epoch costs on recorded searches of one data set, backbone and device.

    Epochs in which a pruner scored operations are left out.

    Raises:
        ConfigError: If too few epochs are left.
    """
    parts = [search.measured() for search in searches if not search.n_scored_slices.any()]
    return fit_epoch_cost(MeasuredEpochs.joined(parts))


def _search_task(session: Session, job: Job) -> StageTask | None:
    tasks = stage_tasks(job, session.sources[job.dataset], {})
    return next((task for task in tasks if task.kind == "search"), None)
