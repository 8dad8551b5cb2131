"""Studies: what a sweep file may say, replayed trials, proposals, stale trials."""

from dataclasses import replace
from pathlib import Path

import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState, create_trial

from iac_core.data import open_dataset
from iac_core.data.splits import make_split
from iac_core.errors import ConfigError
from orchestrator.confirmed import (
    DICE_LOSS,
    CellOutcome,
    finished_trials,
    objectives_of,
    open_confirmed,
    outcome_of,
    trial_job,
)
from orchestrator.executors import InlineExecutor
from orchestrator.expand import expand, is_on_cell
from orchestrator.proposals import REPLAYED, queue_proposals, surprise_of
from orchestrator.recorded import grid_cells
from orchestrator.replays import replay_rooms
from orchestrator.reporting import tuned_arms
from orchestrator.rows import job_tables, validation_dice
from orchestrator.run_sweep import View, run_sweep
from orchestrator.session import tables
from orchestrator.spec import SweepError, load_sweep
from orchestrator.study import (
    CELLS,
    SETTINGS,
    Proposal,
    cells_judged_on,
    close_stale,
    draw,
    leading,
    pareto_order,
    proposal_of,
    run_replayed_trials,
)
from orchestrator.study_export import export_study, load_confirmed
from orchestrator.study_report import study_pages
from orchestrator.study_settings import NamedOptions, Range, StudySettings, TunedSettings
from orchestrator.tuning import study_lines
from results.report import StudyPages
from results.schema import conform
from results.transfer import StudySplit
from workers.task_graph import stage_tasks

SPACE = {
    "js_stability": {
        "threshold": Range(low=0.01, high=1.0, log=True),
        "window_epochs": Range(low=1, high=3),
        "rank_guard": (True, False),
    }
}


@pytest.fixture
def study_session(finished, tmp_path):
    """A session with a study, whose trials nobody has run."""
    spec = replace(finished.spec, study=StudySettings(space=SPACE, replayed=12))
    return replace(finished, spec=spec, run_dir=tmp_path)


def with_study(write_sweep, study):
    path = write_sweep("[none, js_stability]", "[0, 1]")
    path.write_text(path.read_text() + study)
    return path


GOOD = """    study:
      space:
        js_stability:
          threshold: {low: 1e-3, high: 0.1, log: true}
          window_epochs: {low: 1, high: 4}
          first_check_epoch: [null, 2]
        magnitude: {weak_share: {low: 0.1, high: 1.0}}
      judged_on: {seed: [0]}
      objectives: [val_dice, epoch_equivalents]
      across: worst
      max_dice_loss: 0.01
      sampler: {name: NSGAIISampler, options: {population_size: 8}}
"""


def test_a_study_is_read_with_its_types(write_sweep):
    study = load_sweep(with_study(write_sweep, GOOD), tables=tables()).study
    js = study.space["js_stability"]
    assert js["threshold"] == Range(low=0.001, high=0.1, log=True)
    assert (js["window_epochs"].is_whole, js["threshold"].is_whole) == (True, False)
    assert js["first_check_epoch"] == (None, 2)
    assert study.directions == ["maximize", "minimize"]
    assert study.judged_on == {"seed": (0,)}
    sampler = study.make_sampler(seed=3)
    assert isinstance(sampler, optuna.samplers.NSGAIISampler)
    assert sampler._population_size == 8


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("threshold:", "treshold:", "did you mean 'threshold'"),
        ("high: 4", "high: 0", "low must be below high"),
        ("low: 1, high: 4", "low: -1, high: 4", "window_epochs must draw what js_stability takes"),
        ("[null, 2]", "[null, two]", "first_check_epoch must draw what js_stability takes"),
        ("high: 1.0", "high: 1.5", "weak_share must draw what magnitude takes"),
        ("low: 1,", "low: a,", "low"),
        ("magnitude:", "random:", "an operation pruner must be a known one, got 'random'"),
        ("seed: [0]", "seeds: [0]", "did you mean 'seed'"),
        ("seed: [0]", "seed: [7]", "judged_on.seed must name values of the grid, got 7"),
        ("NSGAIISampler,", "NSGA2,", "sampler.name must be one of"),
        ("population_size", "populationsize", "sampler.options must be arguments of"),
        ("size: 8", "size: one", "sampler.options must suit NSGAIISampler"),
        (
            "{name: NSGAIISampler, options: {population_size: 8}}",
            "{name: CmaEsSampler}",
            "sampler must suit objectives and space: If the study is being used for multi",
        ),
        (
            "{name: NSGAIISampler, options: {population_size: 8}}",
            "{name: BruteForceSampler}",
            "step must be given for BruteForceSampler",
        ),
        ("across: worst", "trial_pruner: {name: ASHA}", "SuccessiveHalvingPruner"),
        (
            "across: worst",
            "trial_pruner: {name: HyperbandPruner, options: {rungs: 3}}",
            "trial_pruner.options must be arguments of HyperbandPruner",
        ),
        ("across: worst", "across: best", "across must be 'mean' or 'worst'"),
        ("[null, 2]", "[null]", "first_check_epoch must have choices"),
        ("[none, js", "[js", "a sweep with a study must have the full search in its grid"),
    ],
)  # fmt: skip
def test_a_wrong_study_is_named_with_its_line(write_sweep, old, new, message):
    path = with_study(write_sweep, GOOD)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(SweepError) as caught:
        load_sweep(path, tables=tables())
    assert message in str(caught.value)
    assert all(int(problem.place) > 1 for problem in caught.value.problems)


@pytest.mark.parametrize(
    "sampler", ["TPESampler", "GPSampler", "NSGAIISampler", "CmaEsSampler", "RandomSampler"]
)
def test_optunas_samplers_draw_settings(sampler):
    objectives = ("search_s",) if sampler == "CmaEsSampler" else ("val_dice", "search_s")
    settings = StudySettings(
        space=SPACE, objectives=objectives, sampler=NamedOptions(name=sampler)
    )
    study = optuna.create_study(
        directions=settings.directions, sampler=settings.make_sampler(seed=0)
    )
    for _ in range(12):  # beyond what is drawn at random first
        trial = study.ask()
        _, drawn = draw(trial, settings)
        study.tell(trial, [drawn["threshold"]] * len(objectives))
    assert len({trial.params["js_stability.threshold"] for trial in study.trials}) > 6


def test_cells_are_found_by_any_axis_however_its_values_are_written(write_sweep):
    path = write_sweep("[none]", "[0, 1]")
    axes = """      augmentation: [false, true]
      retrain.validate_every_epochs: [1, 2]
      evaluate.subsets: [[validation], [validation, test]]
    stages:
"""
    path.write_text(path.read_text().replace("    stages:\n", axes))
    jobs = expand(load_sweep(path, tables=tables())).jobs
    assert len(jobs) == 16
    for cell, n in [
        ({}, 16),
        ({"augmentation": (False,)}, 8),
        ({"augmentation": (False,), "seed": (1,)}, 4),
        ({"evaluate.subsets": (["validation"],)}, 8),
        ({"evaluate.subsets": (["validation"],), "retrain.validate_every_epochs": (1, 2)}, 8),
        ({"seed": (7,)}, 0),
    ]:
        assert sum(is_on_cell(job, cell) for job in jobs) == n, cell


def test_a_setting_is_drawn_only_with_its_pruner():
    settings = StudySettings(
        space=SPACE | {"magnitude": {"weak_share": Range(low=0.1, high=1.0)}},
        sampler=NamedOptions(name="RandomSampler"),
    )
    study = optuna.create_study(sampler=settings.make_sampler(0))
    drawn = [draw(study.ask(), settings) for _ in range(30)]
    assert {pruner for pruner, _ in drawn} == {"js_stability", "magnitude"}
    for trial, (pruner, values) in zip(study.trials, drawn, strict=True):
        assert set(values) == set(settings.space[pruner])
        assert set(trial.params) == {"pruner", *(f"{pruner}.{name}" for name in values)}


def test_replayed_trials_are_kept_and_none_is_told_twice(study_session):
    rooms = replay_rooms(cells_judged_on(grid_cells(study_session), study_session.spec.study))
    study = run_replayed_trials(study_session, rooms)
    done = study.get_trials(states=(TrialState.COMPLETE,))
    assert len(done) == 12
    assert len({trial.user_attrs[SETTINGS] for trial in done}) == 12
    for trial in done:
        (cell,) = trial.user_attrs["iac:cells"]
        assert trial.values == [cell["agreement"], cell["search_s"]]
        assert cell["cell"] == "phantom · unet · seed 0"
    again = run_replayed_trials(study_session, rooms)
    assert len(again.trials) == len(study.trials)
    more = replace(study_session.spec.study, replayed=15)
    session = replace(study_session, spec=replace(study_session.spec, study=more))
    study = run_replayed_trials(session, rooms)
    assert len(study.get_trials(states=(TrialState.COMPLETE,))) == 15


def test_a_space_that_is_used_up_ends_the_replays(study_session):
    small = StudySettings(
        space={"js_stability": {"rank_guard": (True, False)}},
        replayed=50,
        sampler=NamedOptions(name="RandomSampler"),
    )
    session = replace(study_session, spec=replace(study_session.spec, study=small))
    study = run_replayed_trials(session, replay_rooms(grid_cells(session)))
    states = [trial.state for trial in study.trials]
    assert states.count(TrialState.COMPLETE) == 2
    assert TrialState.RUNNING not in states


def test_stale_trials_are_closed_and_their_settings_queued_again():
    study = optuna.create_study(directions=["maximize"])
    dead = study.ask()
    drawn = dead.suggest_float("x", 0, 1)
    study.ask()  # died before it drew anything
    assert close_stale(study) == 2
    assert study.ask().suggest_float("x", 0, 1) == drawn
    states = [trial.state for trial in study.get_trials()]
    assert states == [TrialState.FAIL, TrialState.FAIL, TrialState.RUNNING]


def test_one_process_leads_a_study(study_session):
    with (
        leading(study_session),
        pytest.raises(ConfigError, match="led by one process at a time"),
        leading(study_session),
    ):
        pass
    with leading(study_session):
        pass


def replayed_trial(number, agreement, seconds, end):
    return create_trial(
        values=[agreement, seconds],
        params={"x": float(number)},
        distributions={"x": optuna.distributions.FloatDistribution(0, 1000)},
        user_attrs={
            SETTINGS: f"s{number}",
            "iac:cells": [{"epochs": end, "epoch_equivalents": end, "genotype": str(end)}],
        },
    )


def test_fronts_come_in_order():
    trials = [
        replayed_trial(n, *values, n) for n, values in enumerate([(1, 9), (0.5, 5), (0.4, 6)])
    ]
    study = optuna.create_study(directions=["maximize", "minimize"])
    study.add_trials(trials)
    found = study.get_trials()
    values = {trial.number: trial.values for trial in found}
    fronts = list(pareto_order(found, values, ["maximize", "minimize"]))
    assert [[trial.number for trial in front] for front in fronts] == [[0, 1], [2]]


def test_proposals_are_spread_over_the_front_and_corrected_by_what_was_found():
    settings = StudySettings(space=SPACE)
    replayed = optuna.create_study(directions=settings.directions)
    for n in range(9):
        replayed.add_trial(replayed_trial(n, 0.1 * n, 10.0 + n, end=n))
    replayed.add_trial(replayed_trial(9, 0.8, 17.9, end=8))  # number 8's genotype, cheaper
    replayed.add_trial(replayed_trial(10, 0.0, 99.0, end=99))  # beaten by all
    confirmed = optuna.create_study(directions=settings.directions)
    assert queue_proposals(replayed, confirmed, settings, 5).n == 0
    waiting = confirmed.get_trials(states=(TrialState.WAITING,))
    queued = [trial.user_attrs[REPLAYED]["number"] for trial in waiting]
    assert sorted(queued) == [0, 2, 4, 6, 9]
    for _ in queued:  # agreement is worth nothing, and searches take twice as long
        trial = confirmed.ask()
        before = trial.user_attrs[REPLAYED]
        trial.suggest_float("x", 0, 1000)
        trial.set_user_attr(SETTINGS, before["settings"])
        confirmed.tell(trial, [0.7, 2 * before["values"][1]])
    surprise = surprise_of(confirmed, settings)
    assert surprise.n == 5
    assert surprise.dice_slope == 0
    assert surprise.factors["search_s"] == pytest.approx(2.0)
    assert surprise.corrected("search_s", 10.0) == pytest.approx(20.0)
    queue_proposals(replayed, confirmed, settings, 2)
    waiting = confirmed.get_trials(states=(TrialState.WAITING,))
    assert [trial.user_attrs[REPLAYED]["number"] for trial in waiting] == [1, 3]


def test_nothing_is_chosen_by_an_evaluation_that_scored_test_patients(finished):
    (job,) = [job for job in finished.expansion.jobs if (job.pruner, job.seed) == ("random", 0)]
    evaluate = stage_tasks(job, finished.sources[job.dataset], {})[-1]
    assert evaluate.kind == "evaluate"
    assert finished.store.record("evaluate", evaluate.key) is not None
    with pytest.raises(ConfigError, match="score validation patients alone, got validation, test"):
        validation_dice(finished.store, evaluate)


@pytest.fixture
def confirmed_session(study_session, tmp_path):
    """A session whose study has three confirmed trials, as if they had been searched for."""
    path = tmp_path / "tiny.yaml"
    text = study_session.spec.path.read_text()
    path.write_text(text + "    study: {space: {js_stability: {threshold: [0.1, 0.2, 0.3]}}}\n")
    settings = StudySettings(
        space={"js_stability": {"threshold": (0.1, 0.2, 0.3)}},
        judged_on={"seed": (0,)},
        max_dice_loss=0.01,
    )
    session = replace(study_session, spec=replace(study_session.spec, study=settings, path=path))
    study = open_confirmed(session)
    for threshold, dice, seconds, loss in [
        (0.1, 0.80, 50.0, -0.01), (0.2, 0.79, 20.0, 0.0), (0.3, 0.60, 5.0, 0.2),
    ]:  # fmt: skip
        study.enqueue_trial({"js_stability.threshold": threshold})
        trial = study.ask()
        proposal_of(session, trial)
        trial.set_user_attr(CELLS, [{DICE_LOSS: loss}])
        study.tell(trial, [dice, seconds])
    return session


def test_the_cheapest_trial_within_the_limit_becomes_a_sweep(confirmed_session):
    written = export_study(confirmed_session, None, None)
    assert written.number == 1
    assert written.why == "least search_s of 3 trials, dice_loss at most 0.01"
    spec = load_sweep(written.path, tables=tables())
    assert spec.name == "tiny_tuned"
    assert spec.study is None
    base = confirmed_session.spec.pruners["js_stability"]
    assert spec.pruners["tuned"] == replace(base, threshold=0.2)
    arms = {axis.name: axis.values for axis in spec.axes}["pruner"]
    assert arms == ("none", "js_stability", "js_stability_fast", "random", "tuned")
    assert spec.tuned["tuned"] == TunedSettings(
        study="tiny",
        trial=1,
        judged_on={"dataset": ("phantom",), "backbone": ("unet",), "seed": (0,)},
    )
    final = replace(confirmed_session, spec=spec, expansion=expand(spec))
    (arm,) = tuned_arms(final, recorded(final))
    assert arm.tuned_on == "phantom · unet · seed 0"
    assert arm.references == ("none", "js_stability", "js_stability_fast")
    seen = [job for job in expand(spec).jobs if job.job_id in arm.seen]
    assert {job.seed for job in seen} == {0}
    assert len(seen) == len(arms)
    with pytest.raises(ConfigError, match="--into must be a new file"):
        export_study(confirmed_session, None, None)


def recorded(session):
    """The rows of the table of jobs, as far as their pre-trainings are concerned."""
    rows = [
        {"job_id": state.job.job_id, "pretrain_key": task.key}
        for state in session.plan().states
        for task in state.tasks
        if task.kind == "pretrain"
    ]
    return conform("jobs", pd.DataFrame(rows))


def test_a_tuned_arm_knows_the_patients_that_trained_or_validated_where_it_was_tuned(
    confirmed_session,
):
    spec = load_sweep(export_study(confirmed_session, None, None).path, tables=tables())
    session = replace(confirmed_session, spec=spec, expansion=expand(spec))

    def splits(**judged_on):
        tuned = {"tuned": replace(spec.tuned["tuned"], judged_on=judged_on)}
        (arm,) = tuned_arms(replace(session, spec=replace(spec, tuned=tuned)), recorded(session))
        return arm.splits

    source = session.sources["phantom"]
    volumes = open_dataset(source.layout, Path(source.path), source.options).volumes()
    patients = sorted({ref.patient_id for ref in volumes})
    split = make_split(patients, spec.stages["split"])
    saw = StudySplit(dataset="phantom", patients=frozenset([*split.train, *split.validation]))
    assert saw.patients < set(patients)
    assert splits(dataset=("phantom",), seed=(0,)) == splits(seed=(1,)) == (saw,)
    away = StudySplit(dataset="phantom", patients=None)
    assert splits(**{"dataset": ("phantom",), "split.fold": (0, 3)}) == (saw, away)
    assert splits(dataset=("hearts",)) == (StudySplit(dataset="hearts", patients=None),)
    (arm,) = tuned_arms(session, recorded(session).assign(pretrain_key=pd.NA))
    assert arm.splits == (away,)


def test_the_exported_sweep_scores_test_patients(confirmed_session):
    path = confirmed_session.spec.path
    text = path.read_text()
    path.write_text(
        text.replace("    backbones:", "      evaluate: {subsets: [validation]}\n    backbones:")
    )
    tuning = load_sweep(path, tables=tables())
    assert tuning.stages["evaluate"].subsets == ("validation",)
    written = export_study(confirmed_session, None, None)
    final = load_sweep(written.path, tables=tables())
    assert final.stages["evaluate"].subsets == ("validation", "test")


def test_a_second_export_is_an_arm_beside_the_first(confirmed_session):
    first = export_study(confirmed_session, None, None)
    text = first.path.read_text() + (
        "    study: {space: {js_stability: {threshold: [0.1, 0.2, 0.3]}}}\n"
    )
    path = first.path.with_name("again.yaml")
    path.write_text(text)
    spec = replace(confirmed_session.spec, path=path)
    second = export_study(replace(confirmed_session, spec=spec), None, 2)
    found = load_sweep(second.path, tables=tables())
    assert (found.pruners["tuned"].threshold, found.pruners["tuned_2"].threshold) == (0.2, 0.3)
    assert (found.tuned["tuned"].trial, found.tuned["tuned_2"].trial) == (1, 2)


def changed(session, **study):
    """The session after its sweep file was edited."""
    return replace(session, spec=replace(session.spec, study=replace(session.spec.study, **study)))


def test_another_limit_of_lost_dice_counts_for_old_trials_too(confirmed_session):
    lines = study_lines(
        changed(confirmed_session, max_dice_loss=0.5), load_confirmed(confirmed_session)
    )
    assert not [line for line in lines if "loses too much Dice" in line]
    export = export_study(changed(confirmed_session, max_dice_loss=0.5), None, None)
    assert export.number == 2


def test_other_objectives_are_another_study(confirmed_session):
    for objectives in (("val_dice", "epoch_equivalents"), ("search_s", "val_dice"), ("val_dice",)):
        with pytest.raises(
            ConfigError, match=r"study.objectives must stay as .* val_dice, search_s"
        ):
            open_confirmed(changed(confirmed_session, objectives=objectives))
        for look in (load_confirmed, study_pages, lambda session: list(finished_trials(session))):
            with pytest.raises(ConfigError, match=r"study\.objectives must stay as"):
                look(changed(confirmed_session, objectives=objectives))


def test_a_trial_is_not_exported_with_settings_that_it_never_ran(confirmed_session):
    study = load_confirmed(confirmed_session)
    pruners = confirmed_session.spec.pruners
    edited = {**pruners, "js_stability": replace(pruners["js_stability"], weak_share=0.9)}
    trial = study.get_trials()[1]
    proposal = proposal_of(confirmed_session, optuna.trial.FixedTrial(trial.params))
    study.add_trial(
        create_trial(
            params=trial.params, distributions=trial.distributions, values=trial.values,
            user_attrs={SETTINGS: proposal.identity},
        )
    )  # fmt: skip
    last = study.get_trials()[-1].number
    assert export_study(confirmed_session, None, last).number == last
    session = replace(confirmed_session, spec=replace(confirmed_session.spec, pruners=edited))
    with pytest.raises(ConfigError, match=f"must stay as trial {last} ran with them"):
        export_study(session, confirmed_session.spec.path.with_name("late.yaml"), last)


def test_a_tuned_arm_must_be_a_pruner_of_the_sweep(write_sweep):
    path = write_sweep("[none, js_stability]", "[0]")
    path.write_text(
        path.read_text()
        + """    tuned:
      tunde: {study: s, trial: 1, judged_on: {seed: [0]}}
      js_stability: {study: s, judged_on: {seed: [0]}}
"""
    )
    with pytest.raises(SweepError) as caught:
        load_sweep(path, tables=tables())
    text = str(caught.value)
    assert "a tuned pruner must be a known one, got 'tunde'" in text
    assert "must have the key trial" in text


def test_another_trial_is_exported_by_its_number(confirmed_session, tmp_path):
    written = export_study(confirmed_session, tmp_path / "other.yaml", 2)
    assert load_sweep(written.path, tables=tables()).pruners["tuned"].threshold == 0.3
    with pytest.raises(ConfigError, match="finished: 0, 1, 2"):
        export_study(confirmed_session, tmp_path / "third.yaml", 7)
    with pytest.raises(ConfigError, match="must lie beside the sweep file"):
        export_study(confirmed_session, tmp_path / "below" / "third.yaml", 2)


def test_what_is_shown_names_the_front_and_who_loses_too_much(confirmed_session):
    lines = list(study_lines(confirmed_session, load_confirmed(confirmed_session)))
    assert lines[0] == "study: 3 trials confirmed; no other one beats these:"
    assert ["loses too much Dice" in line for line in lines[1:]] == [False, False, True]


@pytest.fixture
def tuned_session(finished, tmp_path):
    """A session with replayed trials, and with confirmed ones as if they had been searched for."""
    settings = StudySettings(space=SPACE, replayed=12, max_dice_loss=0.01)
    session = replace(finished, spec=replace(finished.spec, study=settings), run_dir=tmp_path)
    run_replayed_trials(session, replay_rooms(grid_cells(session)[:1]))
    study = open_confirmed(session)
    for place in range(6):
        trial = study.ask()
        proposal_of(session, trial)
        trial.set_user_attr(CELLS, [{DICE_LOSS: 0.02 if place == 5 else 0.0}])
        study.tell(trial, [0.7 + 0.01 * place, 40.0 + (place - 3) ** 2])
    return session


def test_the_report_shows_the_trials_and_optunas_plots(tuned_session):
    pages = study_pages(tuned_session)
    (section,) = pages.sections
    assert "Trials replayed: 12; searched for to the end: 6. " in section.caption
    rows = {line[0]: dict(zip(section.header, line, strict=True)) for line in section.lines}
    assert [number for number, row in rows.items() if row["front"]] == ["3", "4", "5"]
    assert [number for number, row in rows.items() if row["allowed"] == "no"] == ["5"]
    assert rows["5"]["dice_loss"] == "0.0200"
    assert rows["2"]["settings"].startswith("threshold ")
    kinds = {figure.name for figure in pages.figures}
    for which in ("confirmed", "replayed"):
        assert f"study_{which}_front" in kinds
        for kind in ("importance", "slice", "parallel"):
            assert f"study_{which}_{kind}_search_s" in kinds
    assert "study_timeline" in kinds
    assert all(figure.svg.startswith("<svg") for figure in pages.figures)
    assert study_pages(tuned_session).figures == pages.figures


def test_a_space_that_earlier_trials_contradict_is_refused(tuned_session):
    space = {"js_stability": {**SPACE["js_stability"], "threshold": (0.1, 0.2)}}
    spec = replace(tuned_session.spec, study=replace(tuned_session.spec.study, space=space))
    with pytest.raises(ConfigError, match=r"study.space.js_stability.threshold must stay as"):
        open_confirmed(replace(tuned_session, spec=spec))
    space = {"js_stability": {**SPACE["js_stability"], "threshold": Range(low=0.1, high=2.0)}}
    spec = replace(tuned_session.spec, study=replace(tuned_session.spec.study, space=space))
    with pytest.raises(ConfigError, match="threshold must stay as"):
        open_confirmed(replace(tuned_session, spec=spec))
    other = Range(low=0.1, high=2.0, log=True)
    space = {"js_stability": {**SPACE["js_stability"], "threshold": other}}
    spec = replace(tuned_session.spec, study=replace(tuned_session.spec.study, space=space))
    assert open_confirmed(replace(tuned_session, spec=spec)).study_name == "tiny"


def test_a_study_that_has_not_begun_has_nothing_to_show(study_session):
    assert study_pages(study_session) == StudyPages()


def test_a_study_that_has_not_begun_says_how_to_run_it(study_session):
    with pytest.raises(ConfigError, match="orchestrator run"):
        load_confirmed(study_session)


def test_a_trial_scores_validation_patients_alone(finished):
    cell = grid_cells(finished, reads=False)[0]
    proposal = Proposal(
        pruner="js_stability",
        settings=replace(finished.spec.pruners["js_stability"], threshold=0.7),
        identity="0123456789abcdef",
    )
    job = trial_job(cell, proposal)
    assert "test" in cell.job.settings.evaluate.subsets
    assert job.settings.evaluate.subsets == ("validation",)
    assert job.pruner == "js_stability#01234567"
    ends = []
    run_sweep([job], finished.room(), InlineExecutor(), view=View(), on_job_end=ends.append)
    (end,) = ends
    rows = job_tables(end.state.tasks, finished.store, sweep="tiny")["patients"]
    assert set(rows["subset"]) == {"validation"}
    outcome = outcome_of(finished.store, cell, end.state, reference_dice=0.9)
    assert outcome.val_dice == pytest.approx(validation_dice(finished.store, end.state.tasks[-1]))
    assert outcome.dice_loss == pytest.approx(0.9 - outcome.val_dice)
    assert outcome.search_epochs <= 14
    assert outcome.epoch_equivalents <= outcome.search_epochs


def test_objectives_are_the_mean_or_the_worst_of_the_cells():
    outcomes = [
        CellOutcome(
            cell=str(n), val_dice=dice, dice_loss=0.8 - dice, search_s=seconds, search_epochs=9,
            epoch_equivalents=4.0, genotype="",
        )
        for n, (dice, seconds) in enumerate([(0.7, 10.0), (0.9, 30.0)])
    ]  # fmt: skip
    mean = objectives_of(outcomes, StudySettings(space=SPACE))
    assert mean == pytest.approx({"val_dice": 0.8, "search_s": 20.0, "dice_loss": 0.0})
    worst = objectives_of(outcomes, StudySettings(space=SPACE, across="worst"))
    assert worst == pytest.approx({"val_dice": 0.7, "search_s": 30.0, "dice_loss": 0.1})
