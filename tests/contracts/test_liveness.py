"""What every operation pruner that asks for evidence must do under a known law of gradients.

Searches are simulated (see `iac_core.pruners.simulation`) with the real pruner and fixed seeds:
200 epochs, 4 architecture steps an epoch, 14 edges of 8 operations.
"""

from dataclasses import replace

import jaxtyping
import numpy as np
import pytest

from iac_core.pruners import OPERATION_PRUNERS, build_pruner
from iac_core.pruners.evidence import evidence_against
from iac_core.pruners.js_stability import JsStability, JsStabilityFast
from iac_core.pruners.no_pruning import NoPruning, NoPruningSettings
from iac_core.pruners.simulation import (
    RECORDED_NOISE,
    SIMULATED_SEARCH,
    SimulatedGradients,
    simulate,
)
from iac_core.types import Decision

ASK_FOR_EVIDENCE = sorted(
    name
    for name, entry in OPERATION_PRUNERS.items()
    if build_pruner(entry.Settings()).needs_evidence
)
DECIDE_BY_EVIDENCE = [
    name for name in ASK_FOR_EVIDENCE if issubclass(OPERATION_PRUNERS[name], JsStability)
]
MOST_FALSE = 5
N_NOISE = 100


@pytest.fixture(autouse=True)
def _without_checks_of_shapes(monkeypatch):
    """They take most of the time of thousands of epochs; other tests of pruners have them."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def make(name):
    return build_pruner(OPERATION_PRUNERS[name].Settings())


def run(name, law, *, seeds, snr=0.0, noise=RECORDED_NOISE, n_steps=4, search=None):
    gradients = SimulatedGradients(law=law, snr=snr, noise=noise)
    return [
        simulate(make(name), gradients, seed=seed, n_steps=n_steps, search=search)
        for seed in seeds
    ]


def test_the_known_pruners_are_held_to_it():
    assert {"js_stability", "js_stability_fast", "js_absolute"} <= set(ASK_FOR_EVIDENCE)
    assert {"js_stability", "js_stability_fast"} <= set(DECIDE_BY_EVIDENCE)


@pytest.mark.parametrize("name", ASK_FOR_EVIDENCE)
@pytest.mark.parametrize(
    ("optimiser", "decay"), [("adamw", 0.0), ("adamw", 0.1), ("adam_l2", 1e-3)]
)
def test_without_a_gradient_nothing_is_removed_and_nothing_is_alive(name, optimiser, decay):
    search = replace(SIMULATED_SEARCH, alpha_optimiser=optimiser, alpha_weight_decay=decay)
    (found,) = run(name, "zero", seeds=[0], search=search)
    assert not found.has_removed
    assert not found.is_alive
    assert not found.evidence.is_alive.any()
    assert found.n_epochs == 200


class LookingOn(NoPruning):
    """Pruners of one pace that watch the same search, which keeps everything.

    Up to its first removal every one of them sees just what it would see in a search of its own.
    """

    def __init__(self, names):
        super().__init__(NoPruningSettings())
        self.pruners = {name: make(name) for name in names}
        self.have_removed = set()

    @property
    def pace(self):
        return next(iter(self.pruners.values())).pace

    def decide(self, state):
        for name in self.pruners.keys() - self.have_removed:
            if not self.pruners[name].decide(state).keep.all():
                self.have_removed.add(name)
        return Decision(keep=state.active)


def of_one_pace():
    """The pruners that ask for evidence, in groups that can share a search."""
    groups = {}
    for name in ASK_FOR_EVIDENCE:
        groups.setdefault(make(name).pace, []).append(name)
    return list(groups.values())


@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e4])
@pytest.mark.parametrize("names", of_one_pace(), ids="+".join)
def test_noise_removes_nothing_and_is_not_called_alive(names, scale):
    gradients = SimulatedGradients(law="noise", noise=RECORDED_NOISE * scale)
    n_removed, n_alive = dict.fromkeys(names, 0), 0
    for seed in range(N_NOISE):
        panel = LookingOn(names)
        found = simulate(panel, gradients, seed=seed)
        assert found.n_epochs == 200
        assert not found.is_alive
        n_alive += bool(found.evidence.is_alive.any())
        for name in panel.have_removed:
            n_removed[name] += 1
    assert max(n_removed.values()) <= MOST_FALSE
    assert n_alive <= MOST_FALSE


def share_found(found, within):
    """Share of planted edges that keep the plant, and that lost half of the others in time."""
    kept = np.concatenate([search.keeps_plant() for search in found])
    steps = np.concatenate([search.steps_until_half() for search in found])
    return kept.mean(), (steps <= within).mean()


@pytest.mark.parametrize(("snr", "within"), [(0.3, 800), (1.0, 150)])
@pytest.mark.parametrize("name", DECIDE_BY_EVIDENCE)
def test_a_planted_operation_is_kept_and_half_of_the_others_go_in_time(name, snr, within):
    found = run(name, "planted", snr=snr, seeds=range(10))
    kept, in_time = share_found(found, within)
    assert kept >= 0.95
    assert in_time >= 0.9
    assert np.mean([search.is_alive for search in found]) >= 0.9


@pytest.mark.parametrize(("snr", "within"), [(0.3, 800), (1.0, 150)])
def test_a_pruner_that_never_prunes_does_not_pass_for_one_that_does(snr, within):
    found = run("none", "planted", snr=snr, seeds=range(3))
    kept, in_time = share_found(found, within)
    assert kept == 1
    assert in_time == 0


@pytest.mark.parametrize("name", DECIDE_BY_EVIDENCE)
@pytest.mark.parametrize("snr", [0.5, 3.0])
def test_endless_drift_removes_nothing_before_the_bound(name, snr):
    for found in run(name, "drift", snr=snr, seeds=range(5)):
        bound = found.evidence.bound
        reasons = [reason for _, reason in found.events if reason.operations]
        assert all(reason.value > reason.threshold == bound for reason in reasons)
        # Σ / √Σ² of n steps is at most √n.
        removed = found.steps_of_removal[found.steps_of_removal >= 0]
        assert (removed >= bound**2).all()


@pytest.mark.parametrize("name", ASK_FOR_EVIDENCE)
def test_endless_drift_removes_nothing_from_an_edge_that_is_not_alive(name):
    for found in run(name, "drift", snr=0.1, seeds=range(5)):
        dead = ~found.evidence.is_alive[0]
        assert dead.any()
        assert found.active[dead].all()


@pytest.mark.parametrize("name", DECIDE_BY_EVIDENCE)
def test_the_planted_half_of_the_edges_is_pruned_and_the_noisy_half_is_not(name):
    found = run(name, "half_planted", snr=0.3, seeds=range(10))
    kept, in_time = share_found(found, 800)
    assert kept >= 0.95
    assert in_time >= 0.9
    noisy = [search.active[search.plant < 0] for search in found]
    assert np.mean([edges.all() for edges in noisy]) >= 0.9
    assert not any(search.is_alive for search in found)


def test_the_planted_ratio_is_that_of_the_centred_gradient():
    """Σ g of n steps over √Σ g² is about √n · snr / √(1 + snr²)."""
    snr, n = 0.5, 800
    expected = np.sqrt(n) * snr / np.sqrt(1 + snr**2)
    measured = []
    for found in run("none", "planted", snr=snr, seeds=range(10)):
        squares = np.diagonal(found.evidence.gradient_products[0], axis1=-2, axis2=-1)
        strength = -found.evidence.gradient_sum[0] / np.sqrt(squares)
        measured.append(strength[np.arange(14), found.plant])
    assert np.mean(measured) == pytest.approx(expected, rel=0.02)


def test_the_evidence_of_a_simulation_is_that_of_its_gradients():
    (found,) = run("none", "planted", snr=1.0, seeds=[0])
    evidence = found.evidence
    against = evidence_against(
        evidence.gradient_sum, evidence.gradient_products, found.plant[None]
    )
    others = np.arange(8) != found.plant[:, None]
    assert (against[0][others] > evidence.bound).all()
    assert (against[0][~others] == 0).all()
    assert evidence.n_steps == 800


def test_the_fast_rule_differs_in_its_defaults_alone():
    assert JsStabilityFast.decide is JsStability.decide
    assert issubclass(JsStabilityFast.Settings, JsStability.Settings)
