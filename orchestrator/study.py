"""A study: Optuna proposes settings of pruners, replays judge them at once.

Two studies lie in one storage: ``NAME-replayed`` holds what replays say, ``NAME`` what real
searches say. A replayed trial has no Dice: the share of the full search's chosen edges that it
chooses too (`iac_core.pruners.replay.agreement`) stands in for it (our choice), and only real
searches tell whether that was right.
"""

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from files.encoding import DamagedError
from iac_core.errors import ConfigError, IacError
from orchestrator.expand import is_on_cell
from orchestrator.recorded import GridCell
from orchestrator.replays import Replayed, ReplayRoom
from orchestrator.session import Session
from orchestrator.spec import changed_settings
from orchestrator.study_journal import CheckedJournal
from orchestrator.study_settings import (
    StudySettings,
    check_study,
    draw,
)
from workers.job import content_hash, plain
from workers.lease import Lease

STAND_IN = "agreement"
"""What stands in for validation Dice in a replayed trial."""
_MOST_REPEATS = 200
_LEASE_S = 60.0
CELLS = "iac:cells"
"""Attribute of a trial: what it came to on each cell of the grid."""
SETTINGS = "iac:settings"
"""Attribute of a trial: hash of the pruner and all its settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A pruner with settings that a trial has drawn.

    Attributes:
        pruner: Its name in the sweep.
        settings: All of them.
        identity: Hash of both: equal ones are the same search.
    """

    pruner: str
    settings: object
    identity: str


class StorageAwayError(IacError):
    """The database of a study does not answer."""


class StorageDamagedError(StorageAwayError):
    """The journal of a study is damaged: it must be mended by hand."""


@contextmanager
def storage_answers() -> Iterator[None]:
    """Turn errors of a study's database into one kind.

    Raises:
        StorageAwayError: If the database fails, however deep in Tune.
    """
    try:
        yield
    except Exception as error:
        found = list(causes(error))
        if not any(isinstance(one, (StorageInternalError, SQLAlchemyError)) for one in found):
            raise
        reason = str(found[-1]).splitlines()[0]
        raise StorageAwayError(
            f"the study's storage is away ({reason}); the same command goes on"
        ) from error


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what it came from, the first cause last."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def study_of(session: Session) -> StudySettings:
    """Return the sweep's study.

    Raises:
        ConfigError: If it has none.
    """
    if session.spec.study is None:
        raise ConfigError(
            f"{session.spec.path}: a sweep must have a study to be tuned",
            value="none",
            way_out="sweeps/README.md says how",
        )
    return session.spec.study


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageAddress:
    """Where studies lie.

    Attributes:
        url: Of a database; None is a journal file.
        journal: That file.
    """

    url: str | None
    journal: Path

    @property
    def name(self) -> str:
        """The database or the file."""
        return self.url or str(self.journal)


def storage_address(session: Session) -> StorageAddress:
    """Return where the sweep's studies lie: a database, or a journal file beside the runs."""
    return StorageAddress(url=study_of(session).storage, journal=session.run_dir / "study.journal")


def open_storage_at(address: StorageAddress) -> optuna.storages.BaseStorage:
    """Return a storage of studies.

    Raises:
        StorageDamagedError: If a line of the journal is damaged; a torn last one is no damage.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if address.url is not None:
        return optuna.storages.RDBStorage(address.url, engine_kwargs={"pool_pre_ping": True})
    address.journal.parent.mkdir(parents=True, exist_ok=True)
    try:
        return optuna.storages.JournalStorage(CheckedJournal(address.journal))
    except DamagedError as error:
        raise StorageDamagedError(
            f"the lines of a study's journal must be as they were written, got {error}; put a "
            "copy of the file in its place, or move it away: the study begins again, and no "
            "stage is computed twice"
        ) from error


def open_storage(session: Session) -> optuna.storages.BaseStorage:
    """Return the storage of the sweep's studies."""
    return open_storage_at(storage_address(session))


@contextmanager
def leading(session: Session) -> Iterator[None]:
    """Lead the sweep's study: one process at a time asks and tells, so that nothing is run twice.

    Raises:
        ConfigError: If another process leads it.
    """
    name = content_hash([storage_address(session).name, session.spec.name])
    lease = Lease.take(session.store.place.at(f"leases/study-{name}"), time_to_live_s=_LEASE_S)
    if not isinstance(lease, Lease):
        who = lease.identity or {}
        raise ConfigError(
            "a study must be led by one process at a time",
            value=f"another one, {who.get('pid')} on {who.get('host')}",
            way_out="wait for it, or stop it",
        )
    with lease:
        yield


def cells_judged_on(cells: Sequence[GridCell], settings: StudySettings) -> list[GridCell]:
    """Return the cells of the grid that a trial is judged on.

    Raises:
        ConfigError: If there is none.
    """
    chosen = [cell for cell in cells if is_on_cell(cell.job, settings.judged_on)]
    if not chosen:
        raise ConfigError(
            "study.judged_on must leave a cell of the grid",
            value=dict(settings.judged_on),
            way_out="loosen it",
        )
    return chosen


def proposal_of(session: Session, trial: optuna.trial.BaseTrial) -> Proposal:
    """Draw a pruner and its settings.

    Raises:
        ConfigError: If a drawn value is not allowed.
    """
    pruner, drawn = draw(trial, study_of(session))
    settings = changed_settings(session.spec.pruners[pruner], drawn)
    return Proposal(
        pruner=pruner,
        settings=settings,
        identity=content_hash([type(settings).__name__, plain(settings)]),
    )


def prepare(study: optuna.Study, settings: StudySettings, objectives: Sequence[str]) -> None:
    """Check that a study can go on, and let it say what its values are.

    Raises:
        ConfigError: If objectives or space do not suit its earlier trials.
    """
    check_study(study, settings, objectives)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(list(objectives))


def proposal_again(session: Session, trial: FrozenTrial) -> Proposal | None:
    """Return what a trial has run; None if the sweep file says something else by now."""
    try:
        found = proposal_of(session, optuna.trial.FixedTrial(trial.params))
    except (ValueError, ConfigError):
        return None
    return found if trial.user_attrs.get(SETTINGS, found.identity) == found.identity else None


def close_stale(study: optuna.Study) -> int:
    """End trials that a dead process left running, and queue their parameters again.

    Only for the one process that leads the study.

    Returns:
        How many there were.
    """
    stale = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    for trial in stale:
        study.tell(trial.number, state=TrialState.FAIL)
        if trial.params:
            study.enqueue_trial(
                trial.params, user_attrs={**trial.user_attrs, "iac:again": trial.number}
            )
    return len(stale)


def run_replayed_trials(
    session: Session,
    rooms: Sequence[ReplayRoom],
    *,
    on_trial: Callable[[int], None] = lambda n_done: None,
) -> optuna.Study:
    """Ask and tell until the study has its replayed trials; what is there already counts.

    A setting that was replayed before is not told again; when nothing else is drawn any more, the
    space is used up and the study ends.

    Args:
        session: An open sweep with a study.
        rooms: The cells that a trial is judged on, with their recorded searches.
        on_trial: Called with the number of finished trials.

    Raises:
        ConfigError: If a drawn value is not allowed, or the space does not suit earlier trials.
    """
    settings = study_of(session)
    study = optuna.create_study(
        storage=open_storage(session),
        sampler=settings.make_sampler(seed=0),
        study_name=f"{session.spec.name}-replayed",
        directions=settings.directions,
        load_if_exists=True,
    )
    prepare(study, settings, [_stand_in(name) for name in settings.objectives])
    close_stale(study)
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    seen = {trial.user_attrs[SETTINGS] for trial in done}
    n_repeats, deadline = 0, deadline_of(settings)
    while len(seen) < settings.replayed and n_repeats < _MOST_REPEATS:
        if time.monotonic() > deadline:
            break
        trial = study.ask()
        proposal = proposal_of(session, trial)
        if proposal.identity in seen:
            n_repeats += 1
            trial.set_user_attr("iac:repeats", proposal.identity)
            study.tell(trial, state=TrialState.FAIL)
            continue
        n_repeats = 0
        found = [room.replay(proposal.settings) for room in rooms]
        trial.set_user_attr(SETTINGS, proposal.identity)
        trial.set_user_attr(CELLS, [_facts(one) for one in found])
        study.tell(trial, _values(found, settings))
        seen.add(proposal.identity)
        on_trial(len(seen))
    return study


def deadline_of(settings: StudySettings) -> float:
    """When no further trial starts, from now on; on the monotonic clock."""
    return float("inf") if settings.hours is None else time.monotonic() + 3600 * settings.hours


def _stand_in(objective: str) -> str:
    return STAND_IN if objective == "val_dice" else objective


def _facts(found: Replayed) -> dict[str, Any]:
    """What a trial keeps of one cell."""
    return {
        "cell": found.room.cell.label,
        "first_removal_epoch": found.search.first_removal_epoch,
        "epochs": found.search.n_epochs,
        "epoch_equivalents": found.search.epoch_equivalents,
        "search_s": found.search_s,
        "speed_up": found.speed_up,
        STAND_IN: found.agreement,
        "genotype": found.search.genotype.to_json(),
    }


def _values(found: Sequence[Replayed], settings: StudySettings) -> list[float]:
    """The objectives over all cells: their mean, or the worst of them."""
    per_cell = [_facts(one) for one in found]
    values = []
    for objective in settings.objectives:
        numbers = [float(facts[_stand_in(objective)]) for facts in per_cell]
        values.append(settings.over_cells(objective, numbers))
    return values


def pareto_order(
    trials: Sequence[FrozenTrial],
    values: Mapping[int, Sequence[float]],
    directions: Sequence[str],
) -> Iterator[list[FrozenTrial]]:
    """Yield trials front by front: those that no other one beats, then those after them.

    Args:
        trials: Finished ones.
        values: Number of a trial → what it is judged by.
        directions: Optuna's, one per value.

    Yields:
        A front, in order of its values.
    """
    signs = [-1.0 if direction == "maximize" else 1.0 for direction in directions]
    left = {trial.number: trial for trial in trials}
    costs = {
        number: [sign * value for sign, value in zip(signs, values[number], strict=True)]
        for number in left
    }
    while left:
        front = [
            number
            for number in left
            if not any(_beats(costs[other], costs[number]) for other in left)
        ]
        yield [left.pop(number) for number in sorted(front, key=lambda n: (costs[n], n))]


def _beats(a: Sequence[float], b: Sequence[float]) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and list(a) != list(b)
