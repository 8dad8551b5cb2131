"""Trials end when their validation Dice falls behind, by Optuna's own pruners."""

import time
from dataclasses import replace

import optuna
import pytest
from optuna.trial import TrialState

from orchestrator.run_sweep import SweepProgress
from orchestrator.study_settings import NamedOptions, StudySettings
from orchestrator.trial_pruning import CONFIRMED_TRIAL, TrialCurve, curve_room, own_stop_file
from workers.stage_store import StageStore

SPACE = {"js_stability": {"rank_guard": (True, False)}}
MEDIAN = NamedOptions(name="MedianPruner", options={"n_startup_trials": 1})


@pytest.fixture
def session(finished, tmp_path):
    study = StudySettings(space=SPACE, trial_pruner=MEDIAN)
    return replace(finished, spec=replace(finished.spec, study=study), run_dir=tmp_path)


class Retrainings:
    """A trial's retrainings on two cells, in a store of their own, and the curve beside them."""

    def __init__(self, session, number):
        found = [s.tasks for s in session.plan().states if s.is_done and s.job.pruner == "random"]
        self.tasks = [next(task for task in tasks if task.kind == "retrain") for tasks in found]
        store = StageStore(session.run_dir / f"store-{number}")
        self.attempts = [store.begin("retrain", task.key, device="cpu") for task in self.tasks]
        self.curves = ([], [])
        self.user_stop = session.run_dir / "stop"
        self.stop = own_stop_file(self.user_stop, number)
        self.curve = TrialCurve(
            curve_room(session), number, n_cells=2, store=store,
            stop_file=self.stop, user_stop_file=self.user_stop, pause_s=0.0,
        )  # fmt: skip

    def report(self, which, epoch, dice):
        """As a retraining reports an epoch: with all that were validated so far."""
        if dice is not None:
            self.curves[which].append((epoch, dice))
        note = {"epoch": epoch, "n_epochs": 9, "validation_curve": self.curves[which]}
        self.attempts[which].report(note)
        began = time.monotonic()
        self.curve.refresh(SweepProgress(n_jobs=2, running=self.tasks))
        time.sleep(6 * (time.monotonic() - began))  # looking takes a small part of the time

    def close(self, state):
        for attempt in self.attempts:
            attempt.give_up("stopped", reason="")
        self.curve.end(state)


@pytest.fixture
def retrainings(session):
    opened = []

    def open_one(number):
        opened.append(Retrainings(session, number))
        return opened[-1]

    yield open_one
    for one in opened:
        for attempt in one.attempts:
            attempt.lease.give_back()


def test_a_step_needs_every_cell_and_counts_their_mean(session, retrainings):
    trial = retrainings(7)
    trial.report(0, 4, 0.6)
    trial.report(1, 3, None)
    assert curve_room(session).open().trials[0].intermediate_values == {}
    trial.report(1, 4, 0.8)
    trial.report(1, 6, 0.9)  # the other cell is behind: no new step
    assert set(curve_room(session).open().trials[0].intermediate_values) == {4}
    trial.report(0, 6, 0.7)
    trial.close(TrialState.COMPLETE)
    (kept,) = curve_room(session).open().trials
    assert kept.intermediate_values == pytest.approx({4: 0.7, 6: 0.8})
    assert kept.value == pytest.approx(0.8)
    assert kept.user_attrs[CONFIRMED_TRIAL] == 7
    assert not trial.stop.exists()


def test_the_worst_cell_counts_if_the_study_says_so(session, retrainings):
    study = replace(session.spec.study, across="worst")
    object.__setattr__(session.spec, "study", study)
    trial = retrainings(0)
    trial.report(0, 2, 0.5)
    trial.report(1, 2, 0.9)
    assert curve_room(session).open().trials[0].intermediate_values == {2: 0.5}


def test_a_trial_behind_the_others_stops_and_is_told_so(session, retrainings):
    good, bad = retrainings(0), retrainings(1)
    for trial, dice, state in ((good, 0.8, TrialState.COMPLETE), (bad, 0.3, TrialState.PRUNED)):
        trial.report(0, 2, dice)
        trial.report(1, 2, dice)
        assert trial.stop.exists() == (trial is bad)
        trial.close(state)
    assert (good.curve.pruned_at, bad.curve.pruned_at) == (None, 2)
    states = [trial.state for trial in curve_room(session).open().trials]
    assert states == [TrialState.COMPLETE, TrialState.PRUNED]


def test_a_stop_of_the_user_stops_the_trial_without_pruning_it(retrainings):
    trial = retrainings(3)
    trial.user_stop.write_text("")
    trial.report(0, 2, 0.5)
    assert trial.stop.exists()
    assert trial.curve.pruned_at is None


def test_a_study_without_a_pruner_has_no_curves(session):
    study = replace(session.spec.study, trial_pruner=None)
    assert curve_room(replace(session, spec=replace(session.spec, study=study))) is None
    assert isinstance(study.make_trial_pruner(), optuna.pruners.NopPruner)


def test_steps_that_were_not_seen_one_by_one_are_told_all_the_same(session, retrainings):
    trial = retrainings(0)
    trial.curves[0].extend([(2, 0.5), (4, 0.6)])
    trial.report(0, 6, 0.7)
    trial.curves[1].extend([(2, 0.7), (4, 0.8)])
    trial.report(1, 5, None)
    assert curve_room(session).open().trials[0].intermediate_values == pytest.approx(
        {2: 0.6, 4: 0.7}
    )


def test_a_storage_that_fails_prunes_nothing_and_loses_nothing(session, retrainings, caplog):
    trial = retrainings(0)
    journal = session.run_dir / "study.journal"
    journal.unlink()
    journal.mkdir()
    trial.report(0, 2, 0.1)
    trial.report(1, 2, 0.1)
    trial.close(TrialState.COMPLETE)
    assert trial.curve.pruned_at is None
    assert "the curves of trials cannot be kept" in caplog.text
