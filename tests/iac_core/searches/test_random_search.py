"""Random search on toy scores."""

from search_runs import Words, assert_each_once, run_search

from iac_core.searches.interface import DONE, IDLE
from iac_core.searches.random_search import random_search
from iac_core.searches.record import Record


def test_random_search_asks_for_everything_at_once():
    search = random_search(Words(), n_evaluations=60, seed=2)
    assert len(search.ask(25)) == 25
    assert len(search.ask()) == 35
    assert search.ask() is DONE


def test_a_larger_budget_asks_for_more_of_the_same():
    few, many = (random_search(Words(), n_evaluations=n, seed=2).ask() for n in (20, 60))
    assert many[:20] == few


def test_a_small_space_is_seen_whole_and_the_search_ends():
    search = random_search(Words(2, 3), n_evaluations=100, seed=0)
    assert len(search.ask()) == 9
    search = random_search(Words(2, 3), n_evaluations=100, seed=0)
    assert_each_once(run_search(search).record, 9)


def test_in_a_space_that_is_seen_whole_the_end_is_known_when_all_scores_are_told():
    search = random_search(Words(1, 2), n_evaluations=3, seed=0)
    first, second = search.ask()
    assert search.ask() is IDLE
    search.tell(first, 0.0)
    search.tell(second, 0.0)
    assert search.ask() is DONE


def test_what_a_record_knows_is_not_drawn_again():
    record = Record()
    for letter in range(6):
        record.tell(record.add((letter,)), 0.0)
    search = random_search(Words(1, 9), n_evaluations=3, seed=0, record=record)
    assert sorted(proposal.candidate for proposal in search.ask()) == [(6,), (7,), (8,)]
