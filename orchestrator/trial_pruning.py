"""Ending a trial that falls behind: Optuna's pruners on curves of validation Dice.

Optuna's pruners decide in a study of one objective, and a sweep's study may have several. The
curves therefore lie in a study of their own, ``NAME-curves``, with a trial for each confirmed one
(our choice): any pruner works with any objectives, and it remembers what earlier runs saw.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.run_sweep import Looks, SweepProgress, View, request_stop
from orchestrator.session import Session
from orchestrator.study import StorageAddress, open_storage_at, storage_address, study_of
from orchestrator.study_settings import StudySettings
from workers.places import StoreAwayError
from workers.stage_store import StageStore

logger = logging.getLogger(__name__)
CONFIRMED_TRIAL = "iac:trial"
"""Attribute of a curve: number of the confirmed trial that it belongs to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveRoom:
    """Where the curves of a study lie; it travels to the process that a trial runs in.

    Attributes:
        address: The storage.
        study_name: Name of the study of curves.
        settings: The sweep's study.
    """

    address: StorageAddress
    study_name: str
    settings: StudySettings

    def open(self) -> optuna.Study:
        """Return the study of curves, made if it is missing."""
        assert self.settings.trial_pruner is not None
        return optuna.create_study(
            storage=open_storage_at(self.address),
            study_name=self.study_name,
            direction="maximize",
            pruner=self.settings.make_trial_pruner(),
            load_if_exists=True,
        )


def curve_room(session: Session) -> CurveRoom | None:
    """Return where curves lie; None if the study prunes no trials."""
    settings = study_of(session)
    if settings.trial_pruner is None:
        return None
    return CurveRoom(
        address=storage_address(session),
        study_name=f"{session.spec.name}-curves",
        settings=settings,
    )


class TrialCurve(View):
    """Follows the retrainings of a trial and asks them to stop when the trial falls behind.

    A step is an epoch of retraining that every cell of the trial has ended and validated; its
    value is the cells' validation Dice, their mean or the worst as in the study. A retraining
    that was whole before has no curve, nor have two cells that share one: such a trial goes on
    to its end. So does one whose storage of curves fails.

    Args:
        room: Where curves lie.
        number: Of the confirmed trial.
        n_cells: Cells that it is judged on.
        store: Where its stages report.
        stop_file: The trial's own.
        user_stop_file: The sweep's: when it appears the trial stops, too.
        pause_s: Between two looks at the store, at least.

    Attributes:
        pruned_at: Epoch of retraining at which the trial was pruned; None if it was not.
    """

    def __init__(
        self,
        room: CurveRoom,
        number: int,
        *,
        n_cells: int,
        store: StageStore,
        stop_file: Path,
        user_stop_file: Path,
        pause_s: float = 1.0,
    ) -> None:
        self._settings, self._n_cells, self._store = room.settings, n_cells, store
        self._stop_file, self._user_stop_file = stop_file, user_stop_file
        self._dice: dict[str, dict[int, float]] = {}
        self._last: tuple[int, float] | None = None
        self._looks = Looks(store.place, pause_s)
        self._curve: optuna.Trial | None = None
        self.pruned_at: int | None = None
        with _as_advice():
            self._curve = room.open().ask()
            self._curve.set_user_attr(CONFIRMED_TRIAL, number)

    def refresh(self, progress: SweepProgress) -> None:
        """Read how the retrainings stand; stop them if Optuna's pruner says so."""
        if self._user_stop_file.exists():
            request_stop(self._stop_file)
        if self._curve is None or self.pruned_at is not None or not self._looks.begin():
            return
        with suppress(StoreAwayError):
            for task in (*progress.running, *progress.elsewhere):
                if task.kind == "retrain":
                    self._read(task.key)
        self._looks.end()
        with _as_advice():
            self.pruned_at = self._report(self._curve)
        if self.pruned_at is not None:
            request_stop(self._stop_file)

    def end(self, state: TrialState) -> None:
        """Close the curve and take the trial's stop file away.

        Args:
            state: How the confirmed trial ended.
        """
        self._stop_file.unlink(missing_ok=True)
        if self._curve is None:
            return
        study, is_whole = self._curve.study, state == TrialState.COMPLETE
        with _as_advice():
            if is_whole and self._last is not None:
                study.tell(self._curve, self._last[1])
            else:
                study.tell(self._curve, state=TrialState.FAIL if is_whole else state)

    def _read(self, key: str) -> None:
        note = self._store.progress("retrain", key) or {}
        self._dice[key] = {int(epoch): dice for epoch, dice in note.get("validation_curve", ())}

    def _report(self, curve: optuna.Trial) -> int | None:
        """Tell Optuna what is new; the step at which the trial falls behind, if it does."""
        if len(self._dice) < self._n_cells:
            return None
        shared = set.intersection(*(set(dice) for dice in self._dice.values()))
        for step in sorted(shared):
            if self._last is not None and step <= self._last[0]:
                continue
            value = self._settings.over_cells("val_dice", [d[step] for d in self._dice.values()])
            curve.report(value, step)
            self._last = step, value
            if curve.should_prune():
                return step
        return None


@contextmanager
def _as_advice() -> Iterator[None]:
    """Go on without pruning if the storage of curves fails: a search must not be lost for it."""
    try:
        yield
    except (StorageInternalError, SQLAlchemyError, OSError) as error:
        logger.warning("the curves of trials cannot be kept, none is pruned now: %s", error)


def own_stop_file(user_stop_file: Path, number: int) -> Path:
    """Return the file that stops one trial, beside the one that stops the sweep."""
    return user_stop_file.with_name(f"{user_stop_file.name}-trial-{number}")
