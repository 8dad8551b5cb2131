"""Regularised evolution on toy fitness functions."""

import math

import numpy as np
import pytest

from iac_core.config import CellSettings
from iac_core.errors import ConfigError
from iac_core.searches.evolution import RegularisedEvolution
from iac_core.searches.rank_correlation import rank_correlation
from iac_core.searches.space import CellSpace


class Words:
    """Words of ten letters out of six: a space of no cells."""

    def sample(self, generator):
        return tuple(generator.integers(6, size=10).tolist())

    def mutate(self, candidate, generator):
        changed = list(candidate)
        changed[int(generator.integers(10))] = int(generator.integers(6))
        return tuple(changed)


def fitness(word):
    return -sum(abs(letter - place % 6) for place, letter in enumerate(word))


def evolution(space=None, **changes):
    settings = {"population": 20, "tournament": 6, "n_evaluations": 400, "seed": 0, "lag": 1}
    return RegularisedEvolution(space or Words(), **(settings | changes))


def run(search, score=fitness):
    while not search.is_done:
        for proposal in search.ask(1):
            search.tell(proposal.order, score(proposal.candidate))
    return search


def test_evolution_finds_the_optimum_of_a_separable_function():
    assert fitness(run(evolution(n_evaluations=1000)).best().candidate) == 0


def test_evolution_beats_random_search_at_an_equal_budget():
    better = 0
    for seed in range(10):
        found = run(evolution(seed=seed, n_evaluations=150)).best()
        generator = np.random.default_rng(seed)
        drawn = max(fitness(Words().sample(generator)) for _ in range(150))
        better += fitness(found.candidate) > drawn
    assert better == 10


def test_evolution_finds_the_best_cell_of_an_additive_score():
    space = CellSpace(CellSettings(n_nodes=2), 3)
    effects = np.random.default_rng(0).normal(size=space.allowed.shape)

    def score(genotype):
        return float(effects[space.mask(genotype)].sum())

    found = run(evolution(space, n_evaluations=600), score).best()
    best = 0.0
    for target in space.targets:
        edges = [edge for edge, (_, end) in enumerate(space.edges) if end == target]
        best += float(np.sort(effects[0, edges, 1:].max(axis=-1))[-2:].sum())
    assert score(found.candidate) == pytest.approx(best)


def test_no_candidate_is_proposed_twice_and_the_budget_is_kept():
    search = run(evolution())
    candidates = [proposal.candidate for proposal, _ in search.history]
    assert len(candidates) == len(set(candidates)) == 400


def test_a_small_space_is_seen_whole_and_the_search_ends():
    space = CellSpace(CellSettings(n_nodes=1, operations=("skip_connect", "sep_conv_3x3")), 3)
    search = run(evolution(space), score=lambda genotype: len(genotype.to_json()))
    assert len(search.history) == 4


def test_every_child_is_a_mutation_of_a_member_of_its_population():
    search = run(evolution(lag=3))
    for proposal, _ in search.history:
        if proposal.order < 20:
            assert proposal.parent is None
        elif proposal.parent is not None:
            assert proposal.order - 3 - 20 < proposal.parent <= proposal.order - 3


def test_the_same_answers_give_the_same_search_and_another_seed_another():
    first, again, other = run(evolution()), run(evolution()), run(evolution(seed=1))
    assert first.history == again.history
    assert first.history != other.history


def test_a_search_resumes_by_being_asked_again_and_told_the_recorded_answers():
    whole = run(evolution(lag=4))
    recorded = [(proposal.order, score) for proposal, score in whole.history[:133]]
    again = evolution(lag=4)
    for order, score in recorded:
        while len(again.proposals) <= order:
            assert again.ask(1)
        again.tell(order, score)
    assert run(again).history == whole.history


@pytest.mark.parametrize("seed", range(5))
def test_the_order_in_which_open_candidates_are_scored_decides_nothing(seed):
    generator = np.random.default_rng(seed)
    search, waiting = evolution(lag=5, n_evaluations=120), []
    while not search.is_done or waiting:
        waiting += search.ask(int(generator.integers(1, 8)))
        proposal = waiting.pop(int(generator.integers(len(waiting))))
        search.tell(proposal.order, fitness(proposal.candidate))
    assert search.history == run(evolution(lag=5, n_evaluations=120)).history


def test_nothing_is_proposed_while_a_score_is_missing():
    search = evolution(lag=2)
    assert len(search.ask(100)) == 20
    assert search.ask(1) == []
    for order in range(19):
        search.tell(order, 0.0)
    assert [proposal.order for proposal in search.ask(5)] == [20]
    with pytest.raises(ConfigError, match="a candidate that waits for one"):
        search.tell(0, 1.0)
    with pytest.raises(ConfigError, match="a candidate that waits for one"):
        search.tell(99, 1.0)


def test_a_score_that_is_no_number_is_worse_than_any():
    search = evolution()
    first, second = search.ask(2)
    search.tell(first.order, math.nan)
    search.tell(second.order, -1e9)
    assert search.best() == second


def test_rank_correlation_says_how_sure_it_is():
    generator = np.random.default_rng(0)
    truth = generator.normal(size=40)
    alike, p = rank_correlation(truth.tolist(), (truth + 0.5 * generator.normal(size=40)).tolist())
    assert alike > 0.7
    assert p < 1e-4
    assert rank_correlation(truth.tolist(), (-truth).tolist())[1] > 0.99
    assert rank_correlation([1.0, 2.0], [1.0, 2.0])[1] == 1.0
    assert rank_correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0])[1] == 1.0
