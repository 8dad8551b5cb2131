"""Every search space follows the protocol."""

import numpy as np
import pytest
from search_runs import Words
from search_spaces import SEARCH_SPACES, all_candidates

from iac_core.errors import ConfigError
from iac_core.searches.space import SearchSpace, random_neighbour, sample_new

every_space = pytest.mark.parametrize("case", SEARCH_SPACES.values(), ids=SEARCH_SPACES)


@every_space
def test_drawn_candidates_and_all_changes_of_them_are_valid_and_canonical(case):
    space: SearchSpace = case.space
    generator = np.random.default_rng(0)
    for _ in range(20):
        candidate = space.sample(generator)
        changes = [one for name in space.variables for one in space.neighbours(candidate, name)]
        for one in (candidate, *changes, space.mutate(candidate, generator)):
            assert space.is_valid(one)
            assert space.canonical(one) == one


@every_space
def test_neighbours_are_others_each_once_and_at_most_one_for_each_option(case):
    space, generator = case.space, np.random.default_rng(1)
    assert len(set(space.variables)) == len(space.variables) > 0
    for _ in range(20):
        candidate = space.sample(generator)
        for variable in space.variables:
            found = space.neighbours(candidate, variable)
            assert candidate not in found
            n_options = len(space.options(variable))
            assert len(set(found)) == len(found) <= n_options - 1
            assert len(set(space.options(variable))) == n_options >= 2


@every_space
def test_changes_of_one_variable_reach_every_candidate_and_nothing_else_is_drawn(case):
    space, generator = case.space, np.random.default_rng(2)
    everything = all_candidates(space)
    assert len(everything) == case.n
    candidate = space.sample(generator)
    for _ in range(200):
        assert space.sample(generator) in everything
        candidate = space.mutate(candidate, generator)
        assert candidate in everything


@every_space
def test_a_candidate_of_another_space_is_not_valid_and_has_no_canonical_form(case):
    assert not case.space.is_valid(case.foreign)
    with pytest.raises(ConfigError):
        case.space.canonical(case.foreign)


@every_space
def test_draws_and_mutations_depend_on_the_generator_alone(case):
    first, again = np.random.default_rng(3), np.random.default_rng(3)
    for _ in range(5):
        candidate = case.space.sample(first)
        assert candidate == case.space.sample(again)
        assert case.space.mutate(candidate, first) == case.space.mutate(candidate, again)


def test_a_random_neighbour_changes_every_variable_equally_often():
    space, generator = Words(4, 3), np.random.default_rng(0)
    start, counts = (0, 0, 0, 0), np.zeros((4, 3))
    for _ in range(2000):
        ((place, letter),) = [
            (place, letter)
            for place, letter in enumerate(random_neighbour(space, start, generator))
            if letter != 0
        ]
        counts[place, letter] += 1
    assert (counts[:, 0] == 0).all()
    assert (abs(counts[:, 1:] - 250) < 60).all()


def test_a_candidate_without_neighbours_is_its_own():
    assert random_neighbour(Words(3, 1), (0, 0, 0), np.random.default_rng(0)) == (0, 0, 0)


def test_a_new_candidate_is_drawn_until_all_seem_to_be_known():
    generator, known = np.random.default_rng(0), set()
    while (found := sample_new(Words(2, 3), known.__contains__, generator)) is not None:
        assert found not in known
        known.add(found)
    assert len(known) == 9
    assert sample_new(Words(1, 2), {(0,)}.__contains__, generator, n_draws=50) == (1,)
