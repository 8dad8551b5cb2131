"""How far noise moves distributions, and what counts as motion."""

import numpy as np
import pytest

from iac_core.pruners.ranking import jensen_shannon
from iac_core.pruners.windows import motion_over_noise, noise_divergence

EVERY, NOBODY = np.ones((400, 8), dtype=bool), np.zeros((400, 8), dtype=bool)


def walk(n_epochs, size, seed=0, n=400):
    generator = np.random.default_rng(seed)
    start = generator.normal(size=(1, n, 8))
    steps = size * generator.normal(size=(n_epochs, n, 8))
    steps[0] = 0
    return start + np.cumsum(steps, axis=0)


def divergence(logits):
    shares = np.exp(logits[1:])
    shares /= shares.sum(axis=-1, keepdims=True)
    half = len(shares) // 2
    before, after = shares[:half].mean(axis=0), shares[half:].mean(axis=0)
    return jensen_shannon(before, after), (before + after) / 2


@pytest.mark.parametrize("window", [1, 2, 3, 5, 10])
def test_the_divergence_of_a_random_walk_is_what_the_formula_says(window):
    logits = walk(2 * window + 1, 0.02)
    measured, shares = divergence(logits)
    expected = noise_divergence(logits, shares, EVERY)
    assert measured.mean() / expected.mean() == pytest.approx(1, rel=0.1)


def test_a_drift_is_left_out_of_the_noise_and_seen_as_motion():
    drift = np.linspace(-1, 1, 8) * np.arange(11)[:, None, None] * 0.1
    logits = walk(11, 0.02)
    _, shares = divergence(logits)
    still, moving = (noise_divergence(one, shares, EVERY) for one in (logits, logits + drift))
    np.testing.assert_allclose(still, moving, rtol=1e-9)
    assert np.median(motion_over_noise(logits, EVERY, NOBODY)) < 2
    assert np.median(motion_over_noise(logits + drift, EVERY, NOBODY)) > 20


def test_a_leader_that_gains_is_no_motion_and_one_that_loses_is():
    leaders = NOBODY.copy()
    leaders[:, 3] = True
    logits = walk(11, 0.02)
    for slope, is_motion in ((0.2, False), (-0.2, True)):
        moving = logits.copy()
        moving[..., 3] += slope * np.arange(11)[:, None]
        assert (np.median(motion_over_noise(moving, EVERY, leaders)) > 20) == is_motion
        assert np.median(motion_over_noise(moving, EVERY, NOBODY)) > 20


def test_others_that_move_are_motion_even_if_the_leader_gains():
    leaders = NOBODY.copy()
    leaders[:, 3] = True
    moving = walk(11, 0.02)
    moving[..., 3] += 0.2 * np.arange(11)[:, None]
    moving[..., 4] += 0.1 * np.arange(11)[:, None]
    assert np.median(motion_over_noise(moving, EVERY, leaders)) > 20


def test_a_standstill_is_no_motion_and_a_drift_without_noise_is_all_motion():
    still = np.broadcast_to(walk(1, 0.0)[0], (11, 400, 8))
    assert (motion_over_noise(still, EVERY, NOBODY) == 0).all()
    drift = still + np.linspace(-1, 1, 8) * np.arange(11)[:, None, None] * 0.125
    assert (motion_over_noise(drift, EVERY, NOBODY) > 1e6).all()


def test_operations_that_are_gone_do_not_count():
    logits = walk(11, 0.02)
    active = EVERY.copy()
    active[:, 5:] = False
    gone = logits.copy()
    gone[4:, :, 5:] = np.nan
    found = motion_over_noise(gone, active, NOBODY)
    np.testing.assert_allclose(
        found, motion_over_noise(logits[..., :5], active[:, :5], NOBODY[:, :5])
    )
