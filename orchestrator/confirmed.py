"""Confirmed trials of a study: real searches, driven by Ray Tune's `OptunaSearch`.

A trial holds no device. It submits the stages of its jobs as any driver of a sweep does, so that
leases share them with other trials and drivers, and what is done is found. Tune's own state is
thrown away: what counts is Optuna's storage and the store of stages.
"""

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import optuna
import ray
from optuna.trial import FrozenTrial, TrialState
from ray import tune
from ray.exceptions import RayError
from ray.tune.error import TuneError
from ray.tune.experiment import Trial
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from orchestrator.executors import Executor
from orchestrator.plan import JobState, KnownRecords, state_of
from orchestrator.ray_executor import RayExecutor
from orchestrator.recorded import GridCell, grid_cells, read_search
from orchestrator.rows import validation_dice
from orchestrator.run_sweep import JobEnd, SweepRoom, View, run_sweep
from orchestrator.session import Session
from orchestrator.study import (
    CELLS,
    SETTINGS,
    Proposal,
    causes,
    cells_judged_on,
    close_stale,
    open_storage,
    prepare,
    proposal_again,
    proposal_of,
    study_of,
)
from orchestrator.study_settings import StudySettings, check_study
from orchestrator.tracking import FinishedJob, FinishedTrial
from orchestrator.trial_pruning import CurveRoom, TrialCurve, curve_room, own_stop_file
from workers.job import Job
from workers.stage_store import StageStore
from workers.task_graph import JobGraph

logger = logging.getLogger(__name__)
PRUNED_AT = "iac:pruned_at"
"""Attribute of a trial that was pruned: the epoch of retraining."""
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
"""States of a trial whose settings are not searched for again."""
DICE_LOSS = "dice_loss"
"""Name of the constraint: loss against the full search, beyond what is allowed."""
_MOST_REPEATS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class CellOutcome:
    """What a trial found on one cell of the grid, on validation patients alone.

    Attributes:
        cell: Name of the cell.
        val_dice: Mean validation Dice of the retrained network, on the original grid.
        dice_loss: The same of the full search's network, minus this.
        search_s: Seconds of the search.
        search_epochs: Epochs of the search.
        epoch_equivalents: Epochs of the full search that they cost, counted in operations; in
            seconds for a search without alpha.
        genotype: What was found.
    """

    cell: str
    val_dice: float
    dice_loss: float
    search_s: float
    search_epochs: int
    epoch_equivalents: float
    genotype: str


def validation_job(job: Job) -> Job:
    """Return a job that scores validation patients and no others."""
    evaluate = replace(job.settings.evaluate, subsets=("validation",))
    return replace(job, settings=replace(job.settings, evaluate=evaluate))


def trial_job(cell: GridCell, proposal: Proposal) -> Job:
    """Return the job of a proposal on a cell of the grid; it scores validation patients alone."""
    job = validation_job(cell.job)
    return replace(
        job,
        pruner=f"{proposal.pruner}#{proposal.identity[:8]}",
        settings=replace(job.settings, pruner=proposal.settings),
    )


def outcome_of(
    store: StageStore, cell: GridCell, state: JobState, reference_dice: float
) -> CellOutcome:
    """Return what a finished job found.

    Args:
        store: Where stages lie.
        cell: The cell of the grid.
        state: The job with its stages.
        reference_dice: Validation Dice of the full search's network.
    """
    tasks = state.graph.tasks
    record = store.record("search", tasks["search"].key)
    assert record is not None
    search, search_s = read_search(store, tasks["search"]), float(record.outcome["search_s"])
    dice = validation_dice(store, tasks["evaluate"])
    return CellOutcome(
        cell=cell.label,
        val_dice=dice,
        dice_loss=reference_dice - dice,
        search_s=search_s,
        search_epochs=int(record.outcome["search_epochs"]),
        epoch_equivalents=_epochs_of(cell, search_s)
        if search is None
        else search.epoch_equivalents,
        genotype=str(record.outcome["genotype"]),
    )


def _epochs_of(cell: GridCell, search_s: float) -> float:
    """Epochs of the full search that take as long as a search that has no such epochs."""
    assert cell.full is not None, "a cell that a trial is judged on has a full search"
    return search_s * cell.full.n_epochs / cell.full.search_s


def objectives_of(outcomes: Sequence[CellOutcome], settings: StudySettings) -> dict[str, float]:
    """Return each objective over all cells, and the loss that is constrained."""
    return {
        name: settings.over_cells(name, [float(getattr(outcome, name)) for outcome in outcomes])
        for name in (*settings.objectives, DICE_LOSS)
    }


def dice_loss_of(trial: FrozenTrial, settings: StudySettings) -> float | None:
    """Return the validation Dice that a confirmed trial loses against the full search."""
    losses = [float(cell[DICE_LOSS]) for cell in trial.user_attrs.get(CELLS, ())]
    return settings.over_cells(DICE_LOSS, losses) if losses else None


def is_feasible(trial: FrozenTrial, settings: StudySettings) -> bool:
    """Whether a trial loses no more Dice than the study allows now."""
    loss = dice_loss_of(trial, settings)
    return settings.max_dice_loss is None or loss is None or loss <= settings.max_dice_loss


def open_confirmed(session: Session) -> optuna.Study:
    """Return the study of confirmed trials, made if it is missing; stale trials are queued again.

    Only for the one process that leads the study.

    Raises:
        ConfigError: If objectives or space do not suit earlier trials.
    """
    settings = study_of(session)
    study = optuna.create_study(
        storage=open_storage(session),
        study_name=session.spec.name,
        directions=settings.directions,
        load_if_exists=True,
    )
    prepare(study, settings, settings.objectives)
    close_stale(study)
    curves = curve_room(session)
    if curves is not None:
        close_stale(curves.open())
    return study


class StudySearch(OptunaSearch):  # type: ignore[misc]
    """Tune's search of settings, on a study that outlives this process.

    What is queued comes first, then what the sampler draws; settings that were searched for
    before are not searched for again.

    Args:
        session: An open sweep with a study.
        deadline: No trial starts after it, on the monotonic clock.
        on_told: Called with the number of each trial that was run to its end, or pruned.

    Attributes:
        n_failed: Trials whose search has failed.
    """

    def __init__(self, session: Session, deadline: float, on_told: Callable[[int], None]) -> None:
        self._session, self._settings, self._on_told = session, study_of(session), on_told
        self._deadline, self.n_failed = deadline, 0
        super().__init__(
            space=lambda trial: None,
            metric=list(self._settings.objectives),
            mode=[mode[:3] for mode in self._settings.directions],
            sampler=self._settings.make_sampler(seed=1),
            study_name=session.spec.name,
            storage=open_storage(session),
        )
        self._seen = {
            trial.user_attrs[SETTINGS]
            for trial in self.study.get_trials(deepcopy=False)
            if trial.state in ENDED
        }

    @property
    def study(self) -> optuna.Study:
        """The study of confirmed trials."""
        found: optuna.Study = self._ot_study
        return found

    @property
    def n_done(self) -> int:
        """Trials that were run to their end, or pruned."""
        return len(self._seen)

    def suggest(self, trial_id: str) -> Any:  # noqa: ANN401 - Tune's own: settings, or a mark
        """Return settings that were not searched for yet, or the mark of the end."""
        if self._session.stop_file.exists() or time.monotonic() > self._deadline:
            return Searcher.FINISHED
        for _ in range(_MOST_REPEATS):
            trial = self.study.ask()
            proposal = proposal_of(self._session, trial)
            if proposal.identity not in self._seen:
                self._seen.add(proposal.identity)
                trial.set_user_attr(SETTINGS, proposal.identity)
                self._ot_trials[trial_id] = trial
                return {"number": trial.number, "proposal": proposal}
            self.study.tell(trial, state=TrialState.FAIL)
        return Searcher.FINISHED

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell Optuna how a trial ended; one that the user stopped is queued again later."""
        trial = self._ot_trials[trial_id]
        if result is not None and PRUNED_AT in result:
            trial.set_user_attr(PRUNED_AT, result[PRUNED_AT])
            self.study.tell(trial, state=TrialState.PRUNED)
            self._on_told(trial.number)
            return
        if result is None or CELLS not in result:
            if error:
                self.n_failed += 1
                self.study.tell(trial, state=TrialState.FAIL)
            self._seen.discard(trial.user_attrs[SETTINGS])
            return
        trial.set_user_attr(CELLS, result[CELLS])
        if self._settings.max_dice_loss is not None:
            trial.set_constraint(DICE_LOSS, result[DICE_LOSS] - self._settings.max_dice_loss)
        self.study.tell(trial, [result[name] for name in self._settings.objectives])
        self._on_told(trial.number)

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Tune pickles what it would restore from, which is not done here."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the study lies in its storage."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing."""


def finished_trials(
    session: Session, only: int | None = None
) -> Iterator[FinishedJob | FinishedTrial]:
    """Yield the finished jobs of confirmed trials, each with its trial, and pruned trials.

    Args:
        session: An open sweep with a study.
        only: Number of the trial that is asked for; None asks for all.

    Raises:
        ConfigError: If objectives or space do not suit the trials.
    """
    settings = study_of(session)
    storage = open_storage(session)
    if session.spec.name not in optuna.get_all_study_names(storage):
        return
    study = optuna.load_study(study_name=session.spec.name, storage=storage)
    check_study(study, settings, settings.objectives)
    cells = cells_judged_on(grid_cells(session, reads=False), settings)
    records = KnownRecords(session.store)
    for found in study.get_trials(deepcopy=False, states=ENDED):
        if only is not None and found.number != only:
            continue
        if found.state == TrialState.PRUNED:
            yield FinishedTrial(
                number=found.number,
                params=found.params,
                values={},
                pruned_at=found.user_attrs[PRUNED_AT],
            )
            continue
        proposal = proposal_again(session, found)
        if proposal is None:
            logger.warning("trial %d ran with settings that the sweep no longer has", found.number)
            continue
        trial = FinishedTrial(
            number=found.number,
            params=found.params,
            values=dict(zip(settings.objectives, found.values, strict=True)),
        )
        for cell in cells:
            job = trial_job(cell, proposal)
            state = state_of(JobGraph(job, session.sources[job.dataset]), records)
            if state.is_done:
                yield FinishedJob(job=job, tasks=state.tasks, trial=trial)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRoom:
    """What a trial needs beside its settings.

    Attributes:
        cells: The cells of the grid that it is judged on, without their recorded arrays.
        reference_dice: Validation Dice of the full search's network on each of them.
        room: Where its stages run.
        settings: The study.
        curves: Where its curve lies; None prunes no trial.
    """

    cells: tuple[GridCell, ...]
    reference_dice: tuple[float, ...]
    room: SweepRoom
    settings: StudySettings
    curves: CurveRoom | None = None

    def run(self, number: int, proposal: Proposal, executor: Executor) -> dict[str, Any] | None:
        """Search, retrain and score on validation patients.

        Args:
            number: Of the trial.
            proposal: Its settings.
            executor: What runs its stages.

        Returns:
            The objectives, the loss of Dice and what each cell came to; the epoch alone if the
            trial was pruned; None if the user asked to stop.

        Raises:
            TrialFailedError: If a job failed.
        """
        if self.room.stop_file.exists():
            return None
        jobs = [trial_job(cell, proposal) for cell in self.cells]
        if self.curves is None:
            states = run_jobs(jobs, self.room, executor)
        else:
            stop_file = own_stop_file(self.room.stop_file, number)
            curve = TrialCurve(
                self.curves,
                number,
                n_cells=len(jobs),
                store=self.room.store,
                stop_file=stop_file,
                user_stop_file=self.room.stop_file,
            )
            state = TrialState.FAIL
            try:
                states = run_jobs(jobs, replace(self.room, stop_file=stop_file), executor, curve)
                if states is not None:
                    state = TrialState.COMPLETE
                elif curve.pruned_at is not None:
                    state = TrialState.PRUNED
            finally:
                curve.end(state)
            if state == TrialState.PRUNED:
                return {PRUNED_AT: curve.pruned_at}
        if states is None:
            return None
        outcomes = [
            outcome_of(self.room.store, cell, states[job.job_id], dice)
            for cell, job, dice in zip(self.cells, jobs, self.reference_dice, strict=True)
        ]
        return {
            **objectives_of(outcomes, self.settings),
            CELLS: [asdict(outcome) for outcome in outcomes],
        }


class TrialFailedError(Exception):
    """A job of a trial has failed, or the study was cut off."""


def run_jobs(
    jobs: Sequence[Job], room: SweepRoom, executor: Executor, view: View | None = None
) -> dict[str, JobState] | None:
    """Run jobs to their end; None if the user asked to stop.

    Args:
        jobs: The jobs.
        room: Where they run.
        executor: What runs their stages.
        view: Follows along.

    Returns:
        Id of a job → the job with its stages.

    Raises:
        TrialFailedError: If one failed.
    """
    ends: list[JobEnd] = []
    run_sweep(jobs, room, executor, view=view or View(), on_job_end=ends.append)
    for end in ends:
        if end.failure is not None:
            what = f"{end.failure.stage} of {end.state.job.label}"
            raise TrialFailedError(f"{what}: {end.failure.error}")
    if len(ends) < len(jobs):
        return None
    return {end.state.job.job_id: end.state for end in ends}


def _trainable(config: Mapping[str, Any], room: TrialRoom) -> None:
    """A trial as Tune runs it, in a process without a device."""
    with RayExecutor(is_inside=True) as executor:
        result = room.run(config["number"], config["proposal"], executor)
    if result is not None:
        tune.report(result)


def _here() -> dict[str, float]:
    """What a trial reserves: no device, and a place on the driver's host, which sees its files.

    Tune wants memory or a CPU; a byte keeps no stage from its place.
    """
    return {"cpu": 0, "memory": 1, f"node:{ray.util.get_node_ip_address()}": 1e-4}


class _Failures(tune.Callback):  # type: ignore[misc]
    """Says why a trial failed, in a line."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: object
    ) -> None:
        """Say the error's last line, which names it."""
        error = trial.get_pickled_error()
        lines = str(error).strip().splitlines() or [type(error).__name__]
        self._say(f"trial {trial.config['number']} failed: {lines[-1]}")

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing, as `StudySearch` does."""
        return {}


def run_confirmed_trials(
    session: Session,
    room: TrialRoom,
    *,
    n_trials: int,
    deadline: float,
    say: Callable[[str], None],
    on_told: Callable[[int], None] = lambda number: None,
) -> int:
    """Search for queued settings, then for what the sampler draws, until the study has its trials.

    Ray is running in this process.

    Args:
        session: An open sweep with a study.
        room: What trials need.
        n_trials: Trials that the study is to have.
        deadline: None starts after it, on the monotonic clock.
        say: Takes a line for the user.
        on_told: Called with the number of each trial that was run to its end, or pruned.

    Returns:
        Trials whose search has failed.

    Raises:
        TrialFailedError: If what Tune runs on failed, as when the host ran out of memory.
    """
    settings = study_of(session)
    search = StudySearch(session, deadline, on_told)
    n_left = n_trials - search.n_done
    if n_left <= 0:
        return 0
    # Tune's own screen and logs: the trials are in Optuna's storage and in MLflow.
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    # A trial that was pruned has no objectives.
    os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
    # Ours lets running stages checkpoint; Tune's would kill them.
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    scratch = Path(tempfile.mkdtemp(prefix="tune-"))
    try:
        tune.Tuner(
            tune.with_resources(tune.with_parameters(_trainable, room=room), _here()),
            tune_config=tune.TuneConfig(
                search_alg=search,
                num_samples=n_left,
                max_concurrent_trials=settings.concurrent,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: f"trial-{trial.config['number']}",
            ),
            run_config=tune.RunConfig(
                storage_path=str(scratch), name="study", verbose=0, callbacks=[_Failures(say)]
            ),
        ).fit()
    except (RayError, TuneError, RuntimeError) as error:
        # Not a search, which fails its trial alone, but what Tune itself runs on.
        cause = list(causes(error))[-1]
        reason = f"{type(cause).__name__}: {str(cause).partition(chr(10))[0]}"
        raise TrialFailedError(
            f"the study was cut off ({reason}); the same command goes on"
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return search.n_failed
