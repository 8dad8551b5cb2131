"""Operations that sampled losses speak against: noise eliminates nothing, a bad operation goes."""

from functools import lru_cache, partial

import numpy as np
import pytest

from iac_core.config import CellSettings
from iac_core.pruners.evidence import evidence_bound
from iac_core.searches.cell_space import CellSpace
from iac_core.searches.elimination import (
    detrended,
    eliminations,
    evidence_against,
    looks_until,
)
from iac_core.searches.sampling import path_of_step

CELL = CellSettings()


@lru_cache(maxsize=16)
def whole_paths(seed, sampling, n_steps):
    """Masks of the paths through the whole space: a few draws serve all runs."""
    space = CellSpace(CELL, 3)
    return [
        space.mask(path_of_step(space, sampling, step=step, seed=seed)) for step in range(n_steps)
    ]


def simulate(seed, *, n_steps=512, effects=None, sampling="uniform", noise=None):
    """Train on a falling loss with noise; return the space that is left and what went when."""
    space = CellSpace(CELL, 3)
    generator = np.random.default_rng(seed)
    looks = looks_until(n_steps)
    paths, losses, gone = [], [], []
    for step in range(n_steps):
        mask = whole_paths(seed % 5, sampling, n_steps)[step]
        if gone:
            mask = space.mask(path_of_step(space, sampling, step=step, seed=seed))
        loss = 2 * np.exp(-step / 150) + (noise or generator.normal)()
        paths.append(mask)
        losses.append(loss + (0 if effects is None else effects[mask].sum()))
        if step + 1 in looks:
            found = eliminations(
                np.array(paths), np.array(losses), space.allowed, n_looks=len(looks)
            )
            allowed = space.allowed.copy()
            for one in found:
                allowed[one.level, one.edge, one.operation] = False
                gone.append((step + 1, one.level, one.edge, one.operation))
            space = CellSpace(CELL, 3, allowed)
    return space, gone


@pytest.mark.parametrize("sampling", ["uniform", "fair"])
def test_noise_eliminates_something_in_at_most_five_of_a_hundred_runs(sampling):
    assert sum(bool(simulate(seed, sampling=sampling)[1]) for seed in range(100)) <= 5


def test_noise_with_heavy_tails_eliminates_no_more():
    runs = 0
    for seed in range(100):
        generator = np.random.default_rng([seed, 1])
        runs += bool(simulate(seed, noise=partial(generator.standard_t, 4))[1])
    assert runs <= 5


@pytest.mark.parametrize("edge", [0, 1])
def test_an_operation_that_costs_a_deviation_goes_and_no_other(edge):
    effects = np.zeros((1, 14, 8))
    effects[0, edge, 5] = 1.0
    found = [simulate(seed, effects=effects, n_steps=1024)[1] for seed in range(20)]
    assert sum({(edge, 5)} == {place[2:] for place in gone} for gone in found) >= 18


def test_a_bad_operation_of_a_late_edge_goes_with_more_steps():
    effects = np.zeros((1, 14, 8))
    effects[0, 13, 2] = 1.5
    gone = [simulate(seed, effects=effects, n_steps=2048)[1] for seed in range(5)]
    assert all({place[2:] for place in one} == {(13, 2)} for one in gone)


def test_every_edge_keeps_an_operation_however_large_the_effects():
    effects = np.random.default_rng(0).normal(scale=5.0, size=(1, 14, 8))
    space, gone = simulate(0, effects=effects, n_steps=2048)
    assert len(gone) > 30
    assert space.allowed.any(axis=-1).all()


def test_evidence_is_the_t_statistic_of_a_plain_comparison():
    paths = np.zeros((4000, 1, 1, 2), dtype=bool)
    choice = np.random.default_rng(0).integers(2, size=4000)
    paths[np.arange(4000), 0, 0, choice] = True
    losses = np.random.default_rng(1).normal(size=4000) + 0.1 * choice
    found = evidence_against(paths, losses, np.ones((1, 1, 2), dtype=bool), window=4000)
    groups = losses[choice == 1], losses[choice == 0]
    spread = np.sqrt(sum(group.var(ddof=1) / len(group) for group in groups))
    expected = (groups[0].mean() - groups[1].mean()) / spread
    assert found[0, 0, 0] == 0
    assert found[0, 0, 1] == pytest.approx(expected, rel=0.01)


def test_too_few_steps_are_no_evidence():
    paths = np.ones((1, 1, 2, 2), dtype=bool)
    found = evidence_against(paths, np.zeros(1), np.ones((1, 2, 2), dtype=bool), window=8)
    assert np.isnan(found).all()


def test_a_trend_is_taken_off():
    losses = np.linspace(3, 1, 200)
    assert np.abs(detrended(losses, 11)[5:-5]).max() < 1e-12


def test_the_bound_is_that_of_the_union_over_all_tests():
    assert evidence_bound(14, 8, 8) == pytest.approx(4.58, abs=0.005)
    assert evidence_bound(14, 8, 8, error=0.001) > evidence_bound(14, 8, 8)
