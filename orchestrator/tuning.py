"""A sweep's study from its recorded searches to its confirmed trials."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import optuna
from optuna.trial import TrialState

from iac_core.pruners.replay import NotReplayableError
from orchestrator.confirmed import (
    ENDED,
    TrialRoom,
    is_feasible,
    open_confirmed,
    run_confirmed_trials,
    run_jobs,
    validation_job,
)
from orchestrator.executors import Executor
from orchestrator.proposals import Surprise, describe, queue_proposals, surprise_of
from orchestrator.recorded import grid_cells
from orchestrator.replays import replay_rooms
from orchestrator.rows import validation_dice
from orchestrator.run_sweep import SweepRoom, View
from orchestrator.session import Session
from orchestrator.study import (
    cells_judged_on,
    deadline_of,
    pareto_order,
    run_replayed_trials,
    study_of,
)
from orchestrator.tracking import FinishedTrial
from orchestrator.trial_pruning import curve_room

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """What a study has come to.

    Attributes:
        replayed: The study of replays; None if nothing was replayed.
        confirmed: The study of real searches.
        surprise: How far replays were off.
        n_failed: Trials whose search has failed in this run.
    """

    replayed: optuna.Study | None
    confirmed: optuna.Study
    surprise: Surprise
    n_failed: int


def study_lines(session: Session, confirmed: optuna.Study) -> Iterator[str]:
    """Yield the confirmed trials that no other one beats, and how far replays were off."""
    settings = study_of(session)
    done = confirmed.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    n_pruned = _n(confirmed, TrialState.PRUNED)
    pruned = f", {n_pruned} ended early" if n_pruned else ""
    yield f"study: {len(done)} trials confirmed{pruned}; no other one beats these:"
    values = {trial.number: trial.values for trial in done}
    for trial in next(pareto_order(done, values, settings.directions), []):
        named = dict(zip(settings.objectives, trial.values, strict=True))
        line = trial_line(FinishedTrial(number=trial.number, params=trial.params, values=named))
        yield f"  {line}" + ("" if is_feasible(trial, settings) else "  loses too much Dice")
    yield from describe(surprise_of(confirmed, settings))


def trial_line(trial: FinishedTrial) -> str:
    """Return what is said of a trial that has ended."""
    values = ", ".join(f"{name} {value:.4g}" for name, value in trial.values.items())
    if trial.pruned_at is not None:
        values = f"fell behind at epoch {trial.pruned_at} of retraining and ended"
    drawn = ", ".join(f"{name}={value}" for name, value in trial.params.items())
    return f"trial {trial.number}: {values}  ({drawn})"


def tune(
    session: Session,
    room: SweepRoom,
    executor: Executor,
    *,
    view: View,
    say: Say,
    on_told: Callable[[int], None],
) -> Tuned | None:
    """Replay, propose, confirm, correct, and confirm again; what is there already is kept.

    The process leads the study (`orchestrator.study.leading`), and Ray is running in it.

    Args:
        session: An open sweep with a study.
        room: Where stages run.
        executor: What runs the stages of the full searches.
        view: Follows these.
        say: Takes a line for the user.
        on_told: Called with the number of each confirmed trial that has ended.

    Returns:
        What it came to; None if the user asked to stop before a trial was possible.

    Raises:
        TrialFailedError: If a full search failed.
        ConfigError: If a cell of the grid is wanted that there is not.
    """
    settings = study_of(session)
    cells = cells_judged_on(grid_cells(session, reads=False), settings)
    jobs = [validation_job(cell.job) for cell in cells]
    states = run_jobs(jobs, room, executor, view)
    if states is None:
        return None
    reference_dice = tuple(
        validation_dice(room.store, states[job.job_id].tasks[-1]) for job in jobs
    )
    replayed = _replayed(session, say)
    confirmed = open_confirmed(session)
    trial_room = TrialRoom(
        cells=tuple(cells),
        reference_dice=reference_dice,
        room=room,
        settings=settings,
        curves=curve_room(session),
    )
    # The first half's surprise corrects the ranking of what the second half is taken from.
    n_failed, deadline = 0, deadline_of(settings)
    for share in (1.0,) if replayed is None else (0.5, 1.0):
        n_wanted = round(settings.confirmed * share)
        n_open = n_wanted - _n(confirmed, *ENDED, TrialState.WAITING)
        if replayed is not None and n_open > 0:
            surprise = queue_proposals(replayed, confirmed, settings, n_open)
            if surprise.n:
                say(f"after {surprise.n} confirmed trials: {'; '.join(describe(surprise))}")
        n_failed += run_confirmed_trials(
            session, trial_room, n_trials=n_wanted, deadline=deadline, say=say, on_told=on_told
        )
        if room.stop_file.exists():
            break
    n_done = _n(confirmed, *ENDED)
    if n_done < settings.confirmed:
        say(f"{n_done} of {settings.confirmed} trials have ended; the same command goes on")
    return Tuned(
        replayed=replayed,
        confirmed=confirmed,
        surprise=surprise_of(confirmed, settings),
        n_failed=n_failed,
    )


def _replayed(session: Session, say: Say) -> optuna.Study | None:
    """The replayed trials, run if they are missing; None if the study wants or allows none."""
    settings = study_of(session)
    if not settings.replayed:
        return None
    rooms = replay_rooms(cells_judged_on(grid_cells(session), settings))
    try:
        return run_replayed_trials(session, rooms, on_trial=_every(100, say))
    except NotReplayableError as error:
        say(f"no replays: {error}")
        return None


def _every(n: int, say: Say) -> Callable[[int], None]:
    def on_trial(n_done: int) -> None:
        if n_done % n == 0:
            say(f"{n_done} trials replayed")

    return on_trial


def _n(study: optuna.Study, *states: TrialState) -> int:
    return len(study.get_trials(deepcopy=False, states=states))
