"""Successive halving on toy scores."""

from itertools import pairwise

import pytest
from search_runs import Words, run_search, separable, toy_score

from iac_core.errors import ConfigError
from iac_core.searches.interface import DONE, IDLE
from iac_core.searches.random_search import random_search
from iac_core.searches.record import Record
from iac_core.searches.successive_halving import rung_sizes, successive_halving


def halving(space=None, **changes):
    settings = {"n_evaluations": 40, "budgets": (10, 30, 90), "reduction": 3, "seed": 0}
    return successive_halving(space or Words(), **(settings | changes))


def rungs(record):
    budgets = sorted({proposal.budget for proposal in record.proposals})
    return [[one for one in record.proposals if one.budget == budget] for budget in budgets]


def test_each_rung_has_the_best_of_the_one_before():
    record = run_search(halving(), separable).record
    found = rungs(record)
    assert [len(rung) for rung in found] == [28, 9, 3]
    assert [rung[0].budget for rung in found] == [10, 30, 90]
    drawn = random_search(Words(), n_evaluations=28, seed=0).ask()
    assert [one.candidate for one in found[0]] == [one.candidate for one in drawn]
    for below, above in pairwise(found):
        ranked = sorted(below, key=lambda one: (-separable(one.candidate), one.order))
        assert [one.candidate for one in above] == [one.candidate for one in ranked[: len(above)]]
        assert [one.parent for one in above] == [one.order for one in ranked[: len(above)]]


def test_scores_are_compared_within_a_rung_and_the_best_is_of_the_last():
    """More budget gives lower scores here: the best of the first rung has the highest of all."""
    search = halving()
    while isinstance(asked := search.ask(), list):
        for proposal in asked:
            search.tell(proposal, separable(proposal.candidate) - 100 * proposal.budget)
    found = rungs(search.record)
    best = max(found[0], key=lambda one: separable(one.candidate))
    assert search.record.best().candidate == best.candidate
    assert search.record.best().budget == 90


def test_what_is_promoted_follows_the_scores_of_the_rung_alone():
    """Scores turn round on the second rung: its worst by the first is its best."""
    search = halving()
    for proposal in search.ask():
        search.tell(proposal, separable(proposal.candidate))
    second = search.ask()
    for proposal in second:
        search.tell(proposal, -separable(proposal.candidate))
    best = sorted(second, key=lambda one: (separable(one.candidate), one.order))[:3]
    assert [one.candidate for one in search.ask()] == [one.candidate for one in best]


def test_of_equal_scores_those_that_were_drawn_first_are_promoted():
    first, second, third = rungs(run_search(halving(), lambda _: 0.0).record)
    assert [one.candidate for one in second] == [one.candidate for one in first[:9]]
    assert [one.candidate for one in third] == [one.candidate for one in first[:3]]


def test_no_candidate_is_promoted_before_its_rung_is_told():
    search = halving()
    asked = search.ask()
    for proposal in asked:
        assert search.ask() is IDLE
        search.tell(proposal, 0.0)
    assert {proposal.budget for proposal in search.ask()} == {30}


def test_a_search_with_as_many_scores_as_rungs_has_one_candidate_and_with_fewer_ends_early():
    assert [one.budget for one in run_search(halving(n_evaluations=3)).record.proposals] == [
        10, 30, 90,
    ]  # fmt: skip
    assert [one.budget for one in run_search(halving(n_evaluations=2)).record.proposals] == [
        10, 30,
    ]  # fmt: skip


def test_a_small_space_has_small_rungs():
    found = rungs(run_search(halving(Words(2, 3), n_evaluations=400)).record)
    assert [len(rung) for rung in found] == [9, 3, 1]


def test_a_space_without_anything_new_ends_the_search():
    record = Record()
    for proposal in [record.add((letter,), budget=10) for letter in range(2)]:
        record.tell(proposal, toy_score(proposal))
    assert halving(Words(1, 2), record=record).ask() is DONE


@pytest.mark.parametrize(
    ("arguments", "sizes"),
    [
        ((40, 3, 3), [28, 9, 3]),
        ((13, 3, 3), [9, 3, 1]),
        ((12, 3, 3), [8, 2, 1]),
        ((7, 3, 2), [4, 2, 1]),
        ((5, 1, 4), [5]),
        ((1, 4, 2), [1, 1, 1, 1]),
    ],
)
def test_rungs_are_as_large_as_the_budget_allows(arguments, sizes):
    assert rung_sizes(*arguments) == sizes


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"budgets": ()}, "one or more numbers that increase"),
        ({"budgets": (3, 3)}, "one or more numbers that increase"),
        ({"budgets": (0, 3)}, "one or more numbers that increase"),
        ({"budgets": (1, 2**40)}, "budget must be at most"),
        ({"reduction": 1}, "reduction must be at least 2"),
        ({"n_evaluations": 0}, "n_evaluations must be at least 1"),
    ],
)
def test_settings_of_no_search_are_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        halving(**changes)
