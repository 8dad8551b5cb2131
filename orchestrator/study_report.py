"""What the report shows of a sweep's study: its confirmed trials, and Optuna's own plots."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import optuna
from optuna.importance import FanovaImportanceEvaluator
from optuna.search_space import intersection_search_space
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization import matplotlib as plots

from orchestrator.confirmed import DICE_LOSS, dice_loss_of, is_feasible
from orchestrator.proposals import REPLAYED, describe, surprise_of
from orchestrator.session import Session
from orchestrator.study import STAND_IN, open_storage, pareto_order, study_of
from orchestrator.study_settings import StudySettings, check_study
from orchestrator.trial_pruning import curve_room
from results.figures import svg_drawn_by
from results.illustrations import Illustration
from results.report import StudyPages
from results.tables.cells import COUNT, FOUR_DIGITS, Missing, Number, NumberFormat
from results.tables.table import Column, Table, plain

logger = logging.getLogger(__name__)
_FEWEST_TRIALS = 4
"""Fewer trials make no plot."""
_WIDTHS = {"importance": 0.0, "slice": 2.4, "parallel": 1.6}
"""Inches of a plot for each setting that it shows, at least."""


def study_pages(session: Session) -> StudyPages:
    """Return what the study has come to so far; nothing if it has not begun.

    Raises:
        ConfigError: If objectives or space do not suit its trials.
    """
    settings, storage = study_of(session), open_storage(session)
    # Its plots warn of what the report says itself, such as that no trial is allowed.
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    known = optuna.get_all_study_names(storage)
    figures: list[Illustration] = []
    sections: list[Table] = []

    def load(name: str) -> optuna.Study | None:
        return optuna.load_study(study_name=name, storage=storage) if name in known else None

    name = session.spec.name
    replayed, confirmed = load(f"{name}-replayed"), load(name)
    if confirmed is not None:
        check_study(confirmed, settings, settings.objectives)
        sections.append(_confirmed_section(confirmed, replayed, settings))
        figures += _study_figures(confirmed, "confirmed", settings.objectives)
        figures += _timeline(confirmed)
    curves = curve_room(session)
    found = load(curves.study_name) if curves is not None else None
    if found is not None:
        figures += _drawn(
            "study_curves",
            "Validation Dice of the trials' retrainings, by which trials are pruned.",
            lambda: plots.plot_intermediate_values(found),
        )
    if replayed is not None:
        names = [STAND_IN if name == "val_dice" else name for name in settings.objectives]
        figures += _study_figures(replayed, "replayed", names)
    return StudyPages(sections=tuple(sections), figures=tuple(figures))


def _confirmed_section(
    confirmed: optuna.Study, replayed: optuna.Study | None, settings: StudySettings
) -> Table:
    done = _complete(confirmed)
    values = {trial.number: trial.values for trial in done}
    front = {trial.number for trial in next(pareto_order(done, values, settings.directions), [])}
    n_replayed = 0 if replayed is None else len(_complete(replayed))
    prefix = f"{next(iter(settings.space))}." if len(settings.space) == 1 else ""
    n_pruned = len(confirmed.get_trials(deepcopy=False, states=(TrialState.PRUNED,)))
    text = f"Trials replayed: {n_replayed}; searched for to the end: {len(done)}"
    text += f"; ended early: {n_pruned}. " if n_pruned else ". "
    text += "All of it on validation patients. Front: no other trial is better in every objective."
    if settings.max_dice_loss is not None:
        text += f" Allowed: loses at most {settings.max_dice_loss:g} Dice against the full search."
    surprise = describe(surprise_of(confirmed, settings))
    if surprise:
        text += f" Replays against searches: {'; '.join(surprise)}."
    return Table(
        title="Study",
        caption=text,
        columns=(
            Column(heading="trial", format=COUNT),
            *plain(*settings.objectives, form=FOUR_DIGITS),
            Column(heading=DICE_LOSS, format=NumberFormat(spec=".4f")),
            *plain("front", "allowed", "from", "settings"),
        ),
        rows=tuple(
            (
                Number(trial.number),
                *(Number(value) for value in trial.values),
                _loss(trial, settings),
                "yes" if trial.number in front else "",
                "yes" if is_feasible(trial, settings) else "no",
                "a replay" if REPLAYED in trial.user_attrs else "the sampler",
                ", ".join(
                    f"{name.removeprefix(prefix)} {_short(value)}"
                    for name, value in trial.params.items()
                ),
            )
            for trial in sorted(done, key=lambda trial: trial.values)
        ),
    )


def _loss(trial: FrozenTrial, settings: StudySettings) -> Number | Missing:
    loss = dice_loss_of(trial, settings)
    return Missing("the trial has no outcome of its cells") if loss is None else Number(loss)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _complete(study: optuna.Study) -> Sequence[FrozenTrial]:
    found: Sequence[FrozenTrial] = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return found


def _study_figures(
    study: optuna.Study, which: str, names: Sequence[str]
) -> Iterator[Illustration]:
    """Optuna's plots of a study: front, importance, slices, parallel coordinates."""
    done = _complete(study)
    if len(done) < _FEWEST_TRIALS:
        return
    said = f"of the {len(done)} {which} trials"
    if len(names) in (2, 3):
        yield from _drawn(
            f"study_{which}_front",
            f"Pareto front {said}.",
            lambda: plots.plot_pareto_front(study, target_names=list(names)),
        )
    shared = [
        name
        for name in sorted(intersection_search_space(done))
        if len({trial.params[name] for trial in done}) > 1
    ]
    for place, name in enumerate(names):
        if len({trial.values[place] for trial in done}) < 2 or not shared:
            continue

        def target(trial: FrozenTrial, place: int = place) -> float:
            return float(trial.values[place])

        importance = partial(
            plots.plot_param_importances, evaluator=FanovaImportanceEvaluator(seed=0)
        )
        for kind, words, draw in (
            ("importance", "Importance (fANOVA) of each setting for", importance),
            ("slice", "Each setting against", plots.plot_slice),
            ("parallel", "Settings side by side, coloured by", plots.plot_parallel_coordinate),
        ):
            yield from _drawn(
                f"study_{which}_{kind}_{name}",
                f"{words} {name}, {said}.",
                partial(draw, study, params=shared, target=target, target_name=name),
                width=_WIDTHS[kind] * len(shared),
            )


def _timeline(study: optuna.Study) -> Iterator[Illustration]:
    if len(_complete(study)) >= _FEWEST_TRIALS:
        yield from _drawn(
            "study_timeline",
            "When the confirmed trials ran.",
            lambda: plots.plot_timeline(study),
        )


def _drawn(
    name: str, caption: str, draw: Callable[[], Any], width: float = 0.0
) -> Iterator[Illustration]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            svg = svg_drawn_by(draw, width)
        except (RuntimeError, ValueError) as error:
            # Optuna refuses some studies, such as one in which no setting makes a difference.
            logger.warning("the report lacks %s: %s", name, error)
            return
        yield Illustration(name=name, caption=caption, svg=svg)
