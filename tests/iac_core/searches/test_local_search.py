"""Local search on toy scores."""

import numpy as np
import pytest
from search_runs import Words, assert_each_once, run_search, separable, toy_score
from search_spaces import SEARCH_SPACES

from iac_core.errors import ConfigError
from iac_core.searches.interface import IDLE
from iac_core.searches.local_search import local_search
from iac_core.searches.mixed_block import MixedBlockSpace
from iac_core.searches.mixed_block_settings import MixedBlockSpaceSettings

SMALL = MixedBlockSpace(MixedBlockSpaceSettings(n_nodes=6, n_levels=3))
SEPARABLE = {name: case for name, case in SEARCH_SPACES.items() if case.is_separable}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("case", SEPARABLE.values(), ids=SEPARABLE)
def test_local_search_reaches_the_optimum_of_a_separable_score_in_one_pass(case, seed):
    space = case.space
    search = local_search(space, n_evaluations=10_000, seed=seed, n_restarts=0)
    record = run_search(search, case.score).record
    # The start and all other options of each variable are the first pass. The second finds
    # nothing better, and what it shares with the first is not asked again.
    n_pass = sum(len(space.options(variable)) - 1 for variable in space.variables)
    assert record.best().order <= n_pass
    found = case.score(record.best().candidate)
    assert_each_once(record, len(record.proposals))
    for variable in space.variables:
        for other in space.neighbours(record.best().candidate, variable):
            assert case.score(other) < found
    drawn = (space.sample(np.random.default_rng(number)) for number in range(2000))
    assert found == max(map(case.score, drawn))
    assert len(record.proposals) <= 1 + 2 * n_pass


def test_all_options_of_a_variable_are_asked_at_once_and_the_best_is_kept():
    space = Words()
    search = local_search(space, n_evaluations=100, seed=4)
    (start,) = search.ask()
    assert search.ask() is IDLE
    search.tell(start, separable(start.candidate))
    current, seen = start, set()
    for number in range(1, 9):
        asked = search.ask()
        assert len(asked) == 4
        (variable,) = {proposal.variable for proposal in asked}
        assert {(proposal.round, proposal.parent) for proposal in asked} == {
            (number, current.order)
        }
        assert [proposal.candidate for proposal in asked] == space.neighbours(
            current.candidate, variable
        )
        for proposal in asked:
            assert search.ask() is IDLE
            search.tell(proposal, separable(proposal.candidate))
        best = max(asked, key=lambda each: separable(each.candidate))
        if separable(best.candidate) > separable(current.candidate):
            current = best
        seen.add(variable)
    assert seen == set(space.variables)


def test_equal_scores_keep_the_current_candidate():
    search = local_search(Words(), n_evaluations=100, seed=0, n_restarts=0)
    history = run_search(search, lambda _: 1.0).record.history
    assert {proposal.parent for proposal, _ in history} == {None, 0}
    assert len(history) == 1 + 8 * 4


def test_of_equal_improvements_the_first_option_is_taken():
    search = local_search(Words(2, 4), n_evaluations=30, seed=0, start=(0, 0), n_restarts=0)
    (start,) = search.ask()
    search.tell(start, 0.0)
    asked = search.ask()
    for proposal, score in zip(reversed(asked), (1.0, 1.0, 0.0), strict=True):
        search.tell(proposal, score)
    assert {proposal.parent for proposal in search.ask()} == {asked[1].order}


def test_the_best_option_is_taken_not_the_first_that_is_better():
    scores = {(0,): 0.0, (1,): 1.0, (2,): 3.0, (3,): 2.0}
    search = local_search(Words(1, 4), n_evaluations=9, seed=0, start=(0,), n_restarts=0)
    assert run_search(search, scores.__getitem__).record.best().candidate == (2,)


def test_a_local_optimum_before_the_budget_ends_is_followed_by_new_random_starts():
    search = run_search(local_search(SMALL, n_evaluations=400, seed=3))
    assert_each_once(search.record, 400)
    starts = [proposal for proposal in search.record.proposals if proposal.parent is None]
    assert len(starts) > 1
    # Up to each restart a descent is a local optimum: no neighbour of its end is better.
    once = run_search(local_search(SMALL, n_evaluations=400, seed=3, n_restarts=0))
    n = len(once.record.proposals)
    assert once.record.history == search.record.history[:n]
    assert starts[1].order == n
    end = once.record.best().candidate
    for name in SMALL.variables:
        for neighbour in SMALL.neighbours(end, name):
            assert toy_score(neighbour) <= toy_score(end)


@pytest.mark.parametrize("n_restarts", [0, 1, 4])
def test_restarts_are_as_many_as_the_settings_say(n_restarts):
    search = local_search(Words(6, 4), n_evaluations=4000, seed=0, n_restarts=n_restarts)
    record = run_search(search).record
    assert [one.parent for one in record.proposals].count(None) == 1 + n_restarts
    assert len(record.proposals) < 4000


@pytest.mark.parametrize("budget", [1, 2, 7, 30])
def test_a_smaller_budget_asks_for_the_first_candidates_even_within_a_round(budget):
    search = run_search(local_search(Words(), n_evaluations=budget, seed=0))
    whole = run_search(local_search(Words(), n_evaluations=100, seed=0))
    assert search.record.history == whole.record.history[:budget]


def test_a_start_must_be_of_the_space():
    with pytest.raises(ConfigError, match="start must be of the space"):
        local_search(Words(3, 3), n_evaluations=9, seed=0, start=(0, 0, 3))
    (first,) = local_search(Words(3, 3), n_evaluations=9, seed=0, start=[0, 0, 2]).ask()
    assert first.candidate == (0, 0, 2)
