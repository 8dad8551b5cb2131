"""One candidate after the other."""

import pytest
from search_runs import Words, run_search, toy_score

from iac_core.errors import ConfigError
from iac_core.searches.interface import ask_one
from iac_core.searches.local_search import local_search


def test_one_candidate_after_the_other_gives_the_same_search():
    search = local_search(Words(), n_evaluations=50, seed=0)
    while (proposal := ask_one(search)) is not None:
        search.tell(proposal, toy_score(proposal.candidate))
    expected = run_search(local_search(Words(), n_evaluations=50, seed=0))
    assert search.record.history == expected.record.history


def test_a_search_that_waits_has_no_next_candidate():
    search = local_search(Words(), n_evaluations=50, seed=0)
    assert ask_one(search) is not None
    with pytest.raises(ConfigError, match="all scores must be told before the next candidate"):
        ask_one(search)
