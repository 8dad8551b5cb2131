"""Drivers on real jobs of seconds: the same sequence, whatever was lost, killed or told late."""

import math
from collections import Counter
from dataclasses import replace

import pytest
from changed_stages import change_run
from search_runs import Words

from iac_core.backbones.unet import UNetSettings
from iac_core.searches.evolution import RegularisedEvolution
from iac_core.searches.local_search import local_search
from orchestrator.drivers.driver import drive
from orchestrator.drivers.grid import GridDriver
from orchestrator.drivers.search import SearchDriver
from orchestrator.executors import InlineExecutor
from orchestrator.rows import validation_dice
from orchestrator.run_sweep import View
from orchestrator.session import open_sweep
from workers.failures import OF_THE_JOB, TRIES
from workers.stages.table import STAGES

WIDTHS = (4, 8, 16)
SPACE = Words(n_places=2, n_letters=len(WIDTHS))


@pytest.fixture
def session(write_sweep, tmp_path):
    path = write_sweep("[no_cell]")
    of_validation = "      evaluate: {subsets: [validation]}\n      retrain:"
    path.write_text(path.read_text().replace("      retrain:", of_validation))
    return open_sweep(path, {}, tmp_path / "runs", needs_data=True)


class Recorder(View):
    def __init__(self):
        self.ran = Counter()

    def ended(self, task, end):
        self.ran[task.kind] += end.was_computed


def search_driver(session, search, n_seeds=1):
    """A driver whose candidates are the widths of a U-Net, scored by validation Dice."""
    (base,) = session.expansion.jobs

    def jobs_of(proposal):
        widths = tuple(WIDTHS[letter] for letter in proposal.candidate)
        settings = replace(base.settings, backbone=UNetSettings(widths=widths))
        return [replace(base, seed=seed, settings=settings) for seed in range(n_seeds)]

    def score_of(ends):
        dice = [validation_dice(session.store, end.state.tasks[-1]) for end in ends]
        return sum(dice) / len(dice)

    return SearchDriver(search, jobs_of=jobs_of, score_of=score_of)


def a_search(n=5):
    return local_search(SPACE, n_evaluations=n, seed=0)


def run(session, driver, executor=None):
    ends, view = [], Recorder()
    progress = drive(
        driver, session.room(), executor or InlineExecutor(), view=view, on_job_end=ends.append
    )
    return ends, view, progress


def sequence(search):
    """Candidates in order with their scores, None for those that wait."""
    record = search.record
    return [
        (one.candidate, record.score(one.candidate) if record.is_scored(one.order) else None)
        for one in record.proposals
    ]


def test_a_grid_is_asked_for_at_once(session):
    ends, view, progress = run(session, GridDriver(session.expansion.jobs))
    assert len(ends) == progress.n_jobs == 1
    assert view.ran["evaluate"] == 1
    assert run(session, GridDriver([]))[0] == []


def test_a_search_asks_for_jobs_learns_and_is_resumed_by_asking_again(session):
    search = a_search()
    ends, view, progress = run(session, search_driver(session, search, n_seeds=2))
    assert progress.n_jobs == len(ends) == 10
    assert view.ran["pretrain"] == 10
    assert view.ran["prepare"] == 1
    first = sequence(search)
    assert len({score for _, score in first}) > 1

    again = a_search()
    _, view, _ = run(session, search_driver(session, again, n_seeds=2))
    assert sequence(again) == first
    assert sum(view.ran.values()) == 0, "every answer is a stage in the store"


def test_the_order_in_which_jobs_end_decides_nothing(session, tmp_path, write_sweep):
    one, other = a_search(), a_search()
    run(session, search_driver(session, one))
    later = open_sweep(session.spec.path, {}, tmp_path / "other", needs_data=True)
    driver = search_driver(later, other)
    ask = driver.ask
    driver.ask = lambda: found[::-1] if isinstance(found := ask(), list) else found
    run(later, driver)
    assert sequence(other) == sequence(one)


class KilledError(Exception):
    """Stands for a kill of the whole command."""


def test_a_search_that_was_killed_goes_on_and_computes_nothing_twice(session):
    whole = a_search()
    run(session, search_driver(session, whole))
    n_stages = len(list((session.runs_dir / "store").glob("*/*/manifest.json")))

    for n_before in (1, 3):
        fresh = open_sweep(
            session.spec.path, {}, session.runs_dir.parent / f"runs{n_before}", needs_data=True
        )
        seen = []

        def dies(end, seen=seen, n_before=n_before):
            seen.append(end)
            if len(seen) == n_before:
                raise KilledError

        first = a_search()
        with pytest.raises(KilledError):
            drive(
                search_driver(fresh, first), fresh.room(), InlineExecutor(), view=View(),
                on_job_end=dies,
            )  # fmt: skip
        again = a_search()
        _, view, _ = run(fresh, search_driver(fresh, again))
        assert sequence(again) == sequence(whole)
        stages = list((fresh.runs_dir / "store").glob("*/*/manifest.json"))
        assert len(stages) == n_stages
        assert sum(view.ran.values()) < n_stages


def fails_for(monkeypatch, widths, error, *, times=10**9):
    """Let the pre-training of one network fail."""
    train, left = STAGES["pretrain"].run, [times]

    def run_stage(context):
        if context.task.job.settings.backbone.widths == widths and left[0] > 0:
            left[0] -= 1
            raise error
        return train(context)

    change_run(monkeypatch, "pretrain", run_stage)


def worst_of(search):
    return [candidate for candidate, score in sequence(search) if score == -math.inf]


def test_a_candidate_that_fails_by_itself_is_worse_than_any_other(session, monkeypatch):
    plain = a_search()
    run(session, search_driver(session, plain))
    failing = plain.record.proposals[1].candidate
    widths = tuple(WIDTHS[letter] for letter in failing)
    (session.runs_dir / "store").rename(session.runs_dir / "before")
    fails_for(monkeypatch, widths, ZeroDivisionError("x"))
    search = a_search()
    driver = search_driver(session, search)
    run(session, driver)
    assert driver.lost == []
    assert worst_of(search) == [failing]


def test_a_job_that_the_infrastructure_lost_is_waited_for_and_never_scored(session, monkeypatch):
    monkeypatch.setattr("orchestrator.tries.PAUSE_S", {"disk_full": 0.01})
    whole = a_search()
    run(session, search_driver(session, whole))
    lost = whole.record.proposals[0].candidate
    widths = tuple(WIDTHS[letter] for letter in lost)
    (session.runs_dir / "store").rename(session.runs_dir / "before")
    n_tries = 1 + TRIES["disk_full"]
    fails_for(monkeypatch, widths, OSError(28, "No space left on device"), times=n_tries)
    search = a_search()
    driver = search_driver(session, search)
    ends, _, _ = run(session, driver)
    assert [proposal.candidate for proposal in driver.lost] == [lost]
    assert [end.failure.kind for end in ends] == ["disk_full"]
    assert sequence(search) == [(lost, None)], "nothing is decided without its score"
    again = a_search()
    run(session, search_driver(session, again))
    assert sequence(again) == sequence(whole)


def test_kinds_of_failure_are_the_jobs_own_or_the_infrastructures():
    assert OF_THE_JOB.isdisjoint(set(TRIES) - {"gpu_memory"})


def test_evolution_runs_through_the_same_driver(session):
    def search():
        return RegularisedEvolution(
            SPACE, n_evaluations=5, population=3, tournament=2, lag=2, seed=0
        )

    one, other = search(), search()
    run(session, search_driver(session, one))
    _, view, _ = run(session, search_driver(session, other))
    assert sequence(one) == sequence(other)
    assert len(sequence(one)) == 5
    assert sum(view.ran.values()) == 0
