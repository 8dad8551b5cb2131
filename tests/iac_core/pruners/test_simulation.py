"""The simulated searches are what they say they are."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from iac_core.config import SearchPace, SearchSettings
from iac_core.errors import ConfigError
from iac_core.pruners.fixed_schedule import FixedSchedule, FixedScheduleSettings
from iac_core.pruners.no_pruning import NoPruning, NoPruningSettings
from iac_core.pruners.simulation import SIMULATED_SEARCH, SimulatedGradients, _Adam, simulate


@pytest.mark.parametrize(
    ("optimiser", "decay"), [("adamw", None), ("adamw", 0.1), ("adam_l2", None)]
)
def test_the_optimiser_is_that_of_torch(optimiser, decay):
    settings = SearchSettings(alpha_optimiser=optimiser, alpha_weight_decay=decay)
    steps = np.random.default_rng(0).normal(size=(50, 12)) * 5e-4
    logits = np.random.default_rng(1).normal(size=12)
    parameter = torch.nn.Parameter(torch.from_numpy(logits.copy()))
    kind = torch.optim.AdamW if optimiser == "adamw" else torch.optim.Adam
    theirs = kind(
        [parameter],
        lr=0.03,
        betas=settings.alpha_betas,
        weight_decay=settings.resolved_alpha_weight_decay,
    )
    ours = _Adam(logits.shape, 0.03, settings)
    for step in steps:
        parameter.grad = torch.from_numpy(step)
        theirs.step()
        ours.step(logits, step)
    np.testing.assert_allclose(logits, parameter.detach().numpy(), rtol=1e-9)


def nothing():
    return NoPruning(NoPruningSettings())


def test_the_same_seed_draws_the_same_search():
    law = SimulatedGradients(law="noise")
    one, two, other = (simulate(nothing(), law, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(one.alpha, two.alpha)
    assert not np.array_equal(one.alpha, other.alpha)


def test_gradients_are_centred_over_what_is_left_and_gone_operations_get_none():
    pruner = FixedSchedule(FixedScheduleSettings(every_epochs=20, min_operations=3))
    found = simulate(pruner, SimulatedGradients(law="planted", snr=1.0), seed=0)
    assert not found.active.all()
    sums = found.evidence.gradient_sum[0]
    np.testing.assert_allclose(sums.sum(axis=-1), 0, atol=1e-12)
    steps = found.steps_of_removal
    gone = (steps >= 0) & (steps < found.evidence.n_steps)
    assert np.isnan(found.alpha[-1][gone]).all()
    assert np.isfinite(found.alpha[-1][~gone]).all()


def test_looks_are_at_doubling_steps_and_pruned_edges_stay_what_they_were():
    law = SimulatedGradients(law="planted", snr=1.0)
    whole = simulate(nothing(), law, seed=0).evidence.alive_since
    assert set(np.unique(whole)) <= {16, 32, 64, 128}
    early = FixedSchedule(FixedScheduleSettings(every_epochs=1))
    assert (simulate(early, law, seed=0).evidence.alive_since == -1).all()


def test_a_pace_shortens_epochs_and_moves_the_warm_up():
    pace = SearchPace(alpha_warmup_epochs=10, start_share=0.5)
    pruner = FixedSchedule(FixedScheduleSettings(every_epochs=500, pace=pace))
    found = simulate(pruner, SimulatedGradients(law="noise"), seed=0)
    assert found.evidence.n_steps == 190 * 2
    assert (found.alpha[9] == found.alpha[0]).all()
    assert (found.alpha[10] != found.alpha[9]).any()


def test_without_gradients_decay_alone_moves_alpha():
    law = SimulatedGradients(law="zero")
    still = simulate(nothing(), law, seed=0).alpha
    assert (still[-1] == still[0]).all()
    search = replace(SIMULATED_SEARCH, alpha_weight_decay=0.1)
    fallen = simulate(nothing(), law, seed=0, search=search).alpha
    assert (np.abs(fallen[-1]) < np.abs(fallen[0])).all()


def test_half_of_the_edges_are_planted_and_never_with_none():
    found = simulate(nothing(), SimulatedGradients(law="half_planted"), seed=0)
    assert (found.plant[::2] > 0).all()
    assert (found.plant[1::2] == -1).all()
    assert (found.steps_until_half() == np.inf).all()


@pytest.mark.parametrize("name", ["snr", "noise"])
def test_settings_out_of_range_are_refused_by_name(name):
    with pytest.raises(ConfigError, match=f"{name} must be at least 0"):
        SimulatedGradients(law="noise", **{name: -1.0})
