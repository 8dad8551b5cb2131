"""Which replayed settings are searched for next, and how far replays were off so far."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from orchestrator.study import CELLS, SETTINGS, STAND_IN, pareto_order
from orchestrator.study_settings import StudySettings

REPLAYED = "iac:replayed"
"""Attribute of a confirmed trial: number and values of the replayed one that it was taken from."""
_FEWEST_FOR_A_SLOPE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Surprise:
    """Replayed against real, over the trials that have both.

    Attributes:
        factors: Cost objective → real over replayed, geometric mean.
        dice_slope: Validation Dice that a share of agreement of 1 is worth, least squares, not
            below 0; 0 while there are too few trials to say.
        pairs: Objective → ``(replayed, real)`` of each trial.
    """

    factors: Mapping[str, float]
    dice_slope: float
    pairs: Mapping[str, tuple[tuple[float, float], ...]]

    @property
    def n(self) -> int:
        """Trials that it rests on."""
        return max((len(pairs) for pairs in self.pairs.values()), default=0)

    def corrected(self, objective: str, replayed: float) -> float:
        """Return what a real search is expected to give; for Dice up to a constant."""
        if objective == "val_dice":
            return self.dice_slope * replayed if self.n >= _FEWEST_FOR_A_SLOPE else replayed
        return self.factors.get(objective, 1.0) * replayed


def surprise_of(confirmed: optuna.Study, settings: StudySettings) -> Surprise:
    """Compare the confirmed trials with the replays that they were taken from."""
    pairs: dict[str, list[tuple[float, float]]] = {name: [] for name in settings.objectives}
    for trial in confirmed.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        replayed = trial.user_attrs.get(REPLAYED)
        if replayed is None:
            continue
        for name, before, after in zip(
            settings.objectives, replayed["values"], trial.values, strict=True
        ):
            pairs[name].append((before, after))
    factors = {
        name: math.exp(np.mean([math.log(after / before) for before, after in found]))
        for name, found in pairs.items()
        if name != "val_dice" and found
    }
    return Surprise(
        factors=factors,
        dice_slope=_slope(pairs.get("val_dice", [])),
        pairs={name: tuple(found) for name, found in pairs.items()},
    )


def _slope(pairs: Sequence[tuple[float, float]]) -> float:
    if len(pairs) < _FEWEST_FOR_A_SLOPE:
        return 0.0
    before, after = np.array(pairs).T
    spread = float(((before - before.mean()) ** 2).sum())
    if spread == 0:
        return 0.0
    slope = float(((before - before.mean()) * (after - after.mean())).sum()) / spread
    return max(0.0, slope)


def queue_proposals(
    replayed: optuna.Study, confirmed: optuna.Study, settings: StudySettings, n: int
) -> Surprise:
    """Queue the most promising replayed settings that were not searched for yet.

    The fronts of the corrected values are taken one after the other; of the last one that fits
    only in part, settings evenly spread along it. Of replays that found the same genotype on
    every cell the cheapest counts: another search for it would say little (our choice).

    Args:
        replayed: Finished replays.
        confirmed: Where they are queued.
        settings: The study.
        n: Trials that may be queued.

    Returns:
        What the ranking was corrected by.
    """
    surprise = surprise_of(confirmed, settings)
    known = {
        trial.user_attrs.get(SETTINGS) or trial.user_attrs.get(REPLAYED, {}).get("settings")
        for trial in confirmed.get_trials(deepcopy=False)
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.WAITING)
    }
    done = replayed.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    found = {_genotypes(trial) for trial in done if trial.user_attrs[SETTINGS] in known}
    fresh = [trial for trial in _cheapest(done, settings) if _genotypes(trial) not in found]
    for trial in _spread(fresh, surprise, settings, n):
        confirmed.enqueue_trial(
            trial.params,
            user_attrs={
                REPLAYED: {
                    "number": trial.number,
                    "values": trial.values,
                    "settings": trial.user_attrs[SETTINGS],
                }
            },
        )
    return surprise


def _genotypes(trial: FrozenTrial) -> tuple[str, ...]:
    """What a replay found, on each cell."""
    return tuple(cell["genotype"] for cell in trial.user_attrs[CELLS])


def _cheapest(trials: Sequence[FrozenTrial], settings: StudySettings) -> Iterator[FrozenTrial]:
    """The first of those that found the same, the cheapest before the others."""
    costs = [place for place, name in enumerate(settings.objectives) if name != "val_dice"]
    ordered = sorted(trials, key=lambda trial: [trial.values[place] for place in costs])
    seen = set()
    for trial in ordered:
        if _genotypes(trial) not in seen:
            seen.add(_genotypes(trial))
            yield trial


def _spread(
    trials: Sequence[FrozenTrial], surprise: Surprise, settings: StudySettings, n: int
) -> list[FrozenTrial]:
    values = {
        trial.number: [
            surprise.corrected(name, value)
            for name, value in zip(settings.objectives, trial.values, strict=True)
        ]
        for trial in trials
    }
    chosen: list[FrozenTrial] = []
    for front in pareto_order(trials, values, settings.directions):
        room = n - len(chosen)
        if len(front) <= room:
            chosen += front
        elif room > 0:
            places = np.unique(np.linspace(0, len(front) - 1, room).round().astype(int))
            chosen += [front[place] for place in places]
            break
    return chosen


def describe(surprise: Surprise) -> list[str]:
    """Return the surprise in words, a line per objective."""
    lines: list[str] = []
    for name, pairs in surprise.pairs.items():
        if not pairs:
            continue
        before, after = np.array(pairs).T
        if name == "val_dice":
            lines.append(
                f"{STAND_IN} {before.min():.2f} to {before.max():.2f} in replays, validation Dice "
                f"{after.min():.3f} to {after.max():.3f} in {len(pairs)} searches; slope "
                f"{surprise.dice_slope:.3f}"
            )
        else:
            ratios: Any = before / after
            lines.append(
                f"{name}: replayed over real {np.median(ratios):.2f} in the median, "
                f"{ratios.min():.2f} to {ratios.max():.2f}"
            )
    return lines
