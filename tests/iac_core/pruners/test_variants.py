"""Pruners that a stability test is compared with."""

import numpy as np
import pytest
from pruner_states import drive, state

from iac_core.config import SearchPace
from iac_core.errors import ConfigError
from iac_core.pruners.evidence import blank_evidence
from iac_core.pruners.fixed_schedule import FixedSchedule, FixedScheduleSettings
from iac_core.pruners.genotype_stability import GenotypeStability, GenotypeStabilitySettings
from iac_core.pruners.hessian_stop import HessianStop, HessianStopSettings
from iac_core.pruners.magnitude import Magnitude, MagnitudeSettings

ALL = np.ones((1, 5, 8), dtype=bool)


def moving_alphas(n_epochs, seed=0):
    generator = np.random.default_rng(seed)
    return list(np.cumsum(generator.normal(size=(n_epochs, 1, 5, 8)), axis=0))


def test_a_fixed_schedule_prunes_when_it_is_time_whatever_alpha_does():
    pruner = FixedSchedule(FixedScheduleSettings(every_epochs=3))
    decisions, active = drive(pruner, moving_alphas(40), first_alpha_epoch=2)
    epochs = [epoch for epoch, decision in enumerate(decisions) if decision.reasons]
    assert epochs == [4, 7, 10, 13, 16, 19, 22]
    assert decisions[-1].stop
    assert (active.sum(axis=-1) == 1).all()
    first = decisions[4].reasons[0]
    assert (first.rule, first.value, first.threshold) == ("fixed_schedule", 3.0, 3.0)


def test_magnitude_prunes_low_importance_at_once_and_nothing_in_the_warm_up():
    alphas = [np.zeros((1, 5, 8)) for _ in range(6)]
    for alpha in alphas:
        alpha[..., 3] = -4.0
    decisions, active = drive(Magnitude(MagnitudeSettings()), alphas, first_alpha_epoch=4)
    assert all(decision.keep.all() for decision in decisions[:4])
    assert not active[..., 3].any()
    assert active[..., [0, 1, 2, 4, 5, 6, 7]].all()
    reason = decisions[4].reasons[0]
    assert reason.value < reason.threshold == pytest.approx(0.75 / 8)


def test_a_genotype_that_stands_ends_the_search_and_prunes_nothing():
    changing = list(np.random.default_rng(0).normal(size=(8, 1, 5, 8)))
    alphas = changing + [changing[-1]] * 20
    pruner = GenotypeStability(GenotypeStabilitySettings(patience_epochs=5))
    decisions, active = drive(pruner, alphas)
    assert active.all()
    assert len(decisions) == 8 + 5
    assert decisions[-1].reasons[0].rule == "genotype_unchanged"


def test_a_genotype_that_stands_in_a_dead_search_ends_nothing():
    dead = blank_evidence((1, 5, 8), 4.6)
    still = [np.zeros((1, 5, 8))] * 20
    decisions, _ = drive(GenotypeStability(GenotypeStabilitySettings()), still, evidence=dead)
    assert len(decisions) == 20
    blind = GenotypeStability(GenotypeStabilitySettings(min_live_edge_share=0.0))
    decisions, _ = drive(blind, still, evidence=dead)
    assert len(decisions) == 11
    assert not blind.needs_evidence


def test_a_fixed_schedule_can_prune_edges_too_at_a_pace_of_its_own():
    pace = SearchPace(start_share=0.5)
    pruner = FixedSchedule(FixedScheduleSettings(every_epochs=2, prune_edges=True, pace=pace))
    assert pruner.pace == pace
    betas = [np.array([[0.0, 0.0, 2.0, 1.0, 3.0]])] * 40
    decisions, active = drive(pruner, moving_alphas(40), beta_history=betas)
    lost = [r for d in decisions for r in d.reasons if r.rule == "fixed_schedule_edge"]
    assert [reason.edge for reason in lost] == [3]
    assert np.flatnonzero(active[0, 3]).tolist() == [0]
    assert active[0, [0, 1, 2, 4], 1:].any(axis=-1).all()
    assert decisions[-1].stop
    assert (active.sum(axis=-1) == 1).all()


def eigenvalue_states(values):
    from dataclasses import replace

    for epoch, value in enumerate(values):
        now = state(moving_alphas(epoch + 1), ALL)
        yield replace(now, dominant_eigenvalue=lambda value=value: value)


def test_a_risen_eigenvalue_ends_the_search_and_goes_back():
    pruner = HessianStop(HessianStopSettings())
    decisions = [
        pruner.decide(now) for now in eigenvalue_states([1.0] * 12 + [1.5, 2.0, 2.5, 3.0])
    ]
    stops = [epoch for epoch, decision in enumerate(decisions) if decision.stop]
    # Means of five: 1.1 after the first rise, 1.3 after the second, 1.6 after the third.
    assert stops[0] == 14
    assert decisions[14].genotype_epoch == 10
    assert decisions[14].reasons[0].value == pytest.approx(1.6)


def test_a_flat_or_falling_eigenvalue_ends_nothing():
    pruner = HessianStop(HessianStopSettings())
    values = [5.0, 4.0, 3.0, 2.0, 1.0] + [1.0] * 30
    assert not any(pruner.decide(now).stop for now in eigenvalue_states(values))


@pytest.mark.parametrize(
    "make",
    [
        lambda: FixedScheduleSettings(every_epochs=0),
        lambda: FixedScheduleSettings(n_operations=0),
        lambda: MagnitudeSettings(weak_share=0.0),
        lambda: GenotypeStabilitySettings(patience_epochs=0),
        lambda: HessianStopSettings(factor=0.0),
        lambda: HessianStopSettings(lag=0),
    ],
)
def test_settings_out_of_range_are_refused(make):
    with pytest.raises(ConfigError, match="must be"):
        make()
