"""Shapley values against enumeration, and what the theory says of them."""

from itertools import permutations
from math import factorial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iac_core.pruners.shapley_values import Sampling, sample_shapley_values


def random_game(n_players, seed):
    """A game with a random worth for every coalition."""
    worth = np.random.default_rng(seed).random(2**n_players)
    powers = 2 ** np.arange(n_players)
    return lambda coalitions, draw: worth[coalitions @ powers]


def enumerated(value_of, n_players):
    """Mean marginal contribution over all orders, one permutation after the other."""
    total = np.zeros(n_players)
    for order in permutations(range(n_players)):
        coalition = np.zeros((1, n_players), dtype=bool)
        last = value_of(coalition, 0)[0]
        for player in order:
            coalition[0, player] = True
            value = value_of(coalition, 0)[0]
            total[player] += value - last
            last = value
    return total / factorial(n_players)


class EveryPermutation(np.random.Generator):
    """Stands for a generator that draws each permutation once."""

    def __init__(self, n_players):
        super().__init__(np.random.PCG64(0))
        self.orders = list(permutations(range(n_players)))
        # A reverse comes with each permutation when pairs are drawn.
        self.halves = [order for order in self.orders if order <= order[::-1]]
        self.left = iter(())

    def pairs(self):
        self.left = iter(self.halves)
        return self

    def singles(self):
        self.left = iter(self.orders)
        return self

    def permutation(self, n_players):
        return np.array(next(self.left))


# One player has one order, its own reverse; the pairs of eight hold all their permutations.
@pytest.mark.parametrize(
    ("n_players", "antithetic"),
    [*((n, False) for n in range(1, 7)), *((n, True) for n in range(2, 9))],
)
def test_all_permutations_give_the_enumerated_values(n_players, antithetic):
    game = random_game(n_players, n_players)
    every = EveryPermutation(n_players)
    estimate = sample_shapley_values(
        game,
        n_players,
        every.pairs() if antithetic else every.singles(),
        Sampling(max_permutations=factorial(n_players), antithetic=antithetic),
    )
    assert estimate.n_permutations == factorial(n_players)
    if n_players <= 7:
        assert np.allclose(estimate.values, enumerated(game, n_players), atol=1e-9)
        return
    # Eight players: the sum over subsets is the same number and takes a second, not a minute.
    assert np.allclose(estimate.values, by_subsets(game, n_players), atol=1e-9)


def by_subsets(value_of, n_players):
    """The textbook sum over coalitions without the player."""
    values = np.zeros(n_players)
    numbers = np.arange(2**n_players)
    coalitions = (numbers[:, None] >> np.arange(n_players)) & 1 == 1
    worth = value_of(coalitions, 0)
    sizes = coalitions.sum(axis=1)
    for player in range(n_players):
        without = numbers[~coalitions[:, player]]
        weight = np.array(
            [
                factorial(size) * factorial(n_players - size - 1) / factorial(n_players)
                for size in sizes[without]
            ]
        )
        values[player] = (weight * (worth[without + 2**player] - worth[without])).sum()
    return values


def test_both_oracles_agree():
    game = random_game(5, 0)
    assert np.allclose(enumerated(game, 5), by_subsets(game, 5), atol=1e-12)


@given(st.integers(1, 12), st.integers(0, 100), st.booleans(), st.integers(2, 9))
def test_values_sum_to_the_whole_minus_nothing(n_players, seed, antithetic, n_permutations):
    game = random_game(n_players, seed)
    estimate = sample_shapley_values(
        game,
        n_players,
        np.random.default_rng(seed),
        Sampling(max_permutations=n_permutations, antithetic=antithetic),
    )
    whole, nothing = game(np.array([[True] * n_players, [False] * n_players]), 0)
    assert abs(estimate.values.sum() - (whole - nothing)) <= 1e-6
    assert estimate.whole == pytest.approx(whole)


@given(st.integers(0, 100), st.integers(2, 10))
def test_an_additive_game_is_recovered_by_one_permutation(seed, n_players):
    worth = np.random.default_rng(seed).normal(size=n_players)
    estimate = sample_shapley_values(
        lambda coalitions, draw: 5 + coalitions @ worth,
        n_players,
        np.random.default_rng(seed),
        Sampling(max_permutations=1, antithetic=False),
    )
    assert np.allclose(estimate.values, worth, atol=1e-9)


def test_a_player_that_adds_nothing_gets_nothing_and_twins_get_the_same():
    def value_of(coalitions, draw):
        both = coalitions[:, 0] & coalitions[:, 1]
        return both * 2.0 + coalitions[:, 2] * 0.5

    every = EveryPermutation(4)
    estimate = sample_shapley_values(
        value_of, 4, every.pairs(), Sampling(max_permutations=factorial(4))
    )
    assert estimate.values == pytest.approx([1.0, 1.0, 0.5, 0.0])


def test_truncation_saves_evaluations_and_counts_the_rest_as_nothing():
    worth = np.array([8.0, 1.0, 1.0, 1.0])
    full = Sampling(max_permutations=40, antithetic=False, chunk=1)
    cut = Sampling(max_permutations=40, antithetic=False, chunk=1, truncation=0.5)

    def value_of(coalitions, draw):
        return coalitions @ worth

    runs = [
        sample_shapley_values(value_of, 4, np.random.default_rng(0), how) for how in (full, cut)
    ]
    assert runs[1].n_evaluations < runs[0].n_evaluations
    assert runs[1].values[0] == pytest.approx(8)
    assert runs[1].values[1:].max() < 1


def test_sampling_stops_when_asked_and_before_the_cap():
    game = random_game(6, 1)
    generator = np.random.default_rng(0)
    sampling = Sampling(max_permutations=1000)
    asked = []

    def is_decided(estimate):
        asked.append(estimate.standard_error.max())
        return len(asked) == 3

    estimate = sample_shapley_values(game, 6, generator, sampling, is_decided=is_decided)
    assert estimate.n_permutations == 6
    assert np.isinf(asked[0])
    assert np.isfinite(asked[1])
    capped = sample_shapley_values(game, 6, generator, sampling, max_evaluations=50)
    assert capped.n_evaluations <= 50
    assert capped.n_permutations == 2 * (50 // 14)


def test_the_standard_error_covers_the_truth_about_as_often_as_it_should():
    game = random_game(6, 3)
    truth = by_subsets(game, 6)
    inside = []
    for seed in range(60):
        estimate = sample_shapley_values(
            game, 6, np.random.default_rng(seed), Sampling(max_permutations=60)
        )
        inside.append(np.abs(estimate.values - truth) <= 1.96 * estimate.standard_error)
    assert 0.88 <= np.mean(inside) <= 0.99
