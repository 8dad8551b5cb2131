"""What a search remembers."""

import math
from dataclasses import replace

import pytest

from iac_core.errors import ConfigError
from iac_core.searches.record import Record


def test_a_candidate_is_known_for_its_budget():
    record = Record()
    first = record.add("a")
    second = record.add("a", budget=3, parent=0)
    record.tell(second, 2.0)
    record.tell(first, 1.0)
    assert (record.order("a"), record.order("a", 3)) == (0, 1)
    assert (record.score("a"), record.score("a", 3)) == (1.0, 2.0)
    assert record.knows("a", 3)
    assert not record.knows("a", 4)
    assert record.history == [(first, 1.0), (second, 2.0)]


def test_the_best_has_the_largest_budget_then_the_highest_score_then_the_first_number():
    record = Record()
    scores = [("a", 1, 9.0), ("b", 2, 1.0), ("c", 2, 3.0), ("d", 2, 3.0), ("e", 2, math.nan)]
    for name, budget, score in scores:
        record.tell(record.add(name, budget=budget), score)
    assert record.best().candidate == "c"
    assert sorted(range(5), key=record.rank) == [2, 3, 1, 4, 0]
    with pytest.raises(ConfigError, match="a best candidate needs a scored one"):
        Record().best()


def test_a_score_is_taken_once_and_of_its_own_candidates_alone():
    record = Record()
    proposal = record.add("a")
    for foreign in (replace(proposal, candidate="b"), replace(proposal, order=-1)):
        with pytest.raises(ConfigError, match="a candidate that waits for one"):
            record.tell(foreign, 1.0)
    assert record.has_open
    record.tell(proposal, 1.0)
    assert not record.has_open
    with pytest.raises(ConfigError, match="a candidate that waits for one"):
        record.tell(proposal, 2.0)
    assert record.score("a") == 1.0
