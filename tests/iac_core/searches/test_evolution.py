"""Regularised evolution on toy scores."""

import numpy as np
import pytest
from search_runs import Words, run_search, separable

from iac_core.config import CellSettings
from iac_core.searches.cell_space import CellSpace
from iac_core.searches.evolution import RegularisedEvolution
from iac_core.searches.interface import IDLE
from iac_core.searches.rank_correlation import rank_correlation

WORDS = Words(10, 6)


def fitness(word):
    return -sum(abs(letter - place % 6) for place, letter in enumerate(word))


def evolution(space=None, **changes):
    settings = {"population": 20, "tournament": 6, "n_evaluations": 400, "seed": 0, "lag": 1}
    return RegularisedEvolution(space or WORDS, **(settings | changes))


@pytest.mark.parametrize("seed", range(3))
def test_evolution_finds_the_optimum_of_a_separable_function(seed):
    search = evolution(Words(6, 5), n_evaluations=500, seed=seed)
    assert separable(run_search(search, separable).record.best().candidate) == 0


def test_evolution_beats_random_search_at_an_equal_budget():
    better = 0
    for seed in range(10):
        found = run_search(evolution(seed=seed, n_evaluations=150), fitness).record.best()
        generator = np.random.default_rng(seed)
        drawn = max(fitness(WORDS.sample(generator)) for _ in range(150))
        better += fitness(found.candidate) > drawn
    assert better == 10


def test_evolution_finds_the_best_cell_of_an_additive_score():
    space = CellSpace(CellSettings(n_nodes=2), 3)
    effects = np.random.default_rng(0).normal(size=space.allowed.shape)

    def score(genotype):
        return float(effects[space.mask(genotype)].sum())

    found = run_search(evolution(space, n_evaluations=600), score).record.best()
    best = 0.0
    for target in space.targets:
        edges = [edge for edge, (_, end) in enumerate(space.edges) if end == target]
        best += float(np.sort(effects[0, edges, 1:].max(axis=-1))[-2:].sum())
    assert score(found.candidate) == pytest.approx(best)


def test_no_candidate_is_proposed_twice_and_the_budget_is_kept():
    search = run_search(evolution(), fitness)
    candidates = [proposal.candidate for proposal, _ in search.record.history]
    assert len(candidates) == len(set(candidates)) == 400


def test_a_small_space_is_seen_whole_and_the_search_ends():
    space = CellSpace(CellSettings(n_nodes=1, operations=("skip_connect", "sep_conv_3x3")), 3)
    search = run_search(evolution(space), lambda genotype: len(genotype.to_json()))
    assert len(search.record.history) == 4


def test_every_child_is_a_mutation_of_a_member_of_its_population():
    search = run_search(evolution(lag=3), fitness)
    for proposal, _ in search.record.history:
        if proposal.order < 20:
            assert proposal.parent is None
        elif proposal.parent is not None:
            assert proposal.order - 3 - 20 < proposal.parent <= proposal.order - 3


def test_the_same_answers_give_the_same_search_and_another_seed_another():
    first, again, other = (run_search(evolution(seed=seed), fitness) for seed in (0, 0, 1))
    assert first.record.history == again.record.history
    assert first.record.history != other.record.history


def test_up_to_lag_candidates_are_open_and_no_more():
    search = evolution(lag=2)
    drawn = search.ask(100)
    assert len(drawn) == 20
    assert search.ask(1) is IDLE
    for proposal in drawn[:18]:
        search.tell(proposal, 0.0)
    assert search.ask(1) is IDLE
    search.tell(drawn[18], 0.0)
    assert [proposal.order for proposal in search.ask(5)] == [20]
    assert search.ask(1) is IDLE
    search.tell(drawn[19], 0.0)
    assert [proposal.order for proposal in search.ask(5)] == [21]


@pytest.mark.parametrize("lag", [1, 3, 30])
def test_a_candidate_is_decided_from_scores_up_to_its_lag_before_it(lag):
    """Another score of number j moves no candidate before j + lag, and one soon after it."""

    def asked(word=None, score=0.0):
        search = evolution(lag=lag, n_evaluations=120)
        run_search(search, lambda one: score if one == word else fitness(one))
        return search.record.proposals

    expected = asked()
    for j in (15, 19, 40):
        first = max(20, j + lag)
        changed = [asked(expected[j].candidate, score) for score in (1.0, -1000.0)]
        assert [one[:first] for one in changed] == 2 * [expected[:first]]
        assert any(one[: first + 20] != expected[: first + 20] for one in changed)


def test_a_child_is_of_the_best_of_its_tournament_and_the_first_of_equal_ones():
    search = evolution(tournament=20, n_evaluations=21)
    for proposal in search.ask(20):
        search.tell(proposal, float(proposal.order in (7, 11)))
    assert [proposal.parent for proposal in search.ask()] == [7]


def test_rank_correlation_says_how_sure_it_is():
    generator = np.random.default_rng(0)
    truth = generator.normal(size=40)
    alike, p = rank_correlation(truth.tolist(), (truth + 0.5 * generator.normal(size=40)).tolist())
    assert alike > 0.7
    assert p < 1e-4
    assert rank_correlation(truth.tolist(), (-truth).tolist())[1] > 0.99
    assert rank_correlation([1.0, 2.0], [1.0, 2.0])[1] == 1.0
    assert rank_correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0])[1] == 1.0
