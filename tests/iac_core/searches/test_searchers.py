"""Every searcher on every space keeps the contract of a search; covers `rounds`, `sequence`."""

import math

import numpy as np
import pytest
from search_runs import Words, assert_each_once, run_in_any_order, run_search, toy_score
from search_spaces import SEARCH_SPACES, all_candidates

from iac_core.errors import ConfigError, UnknownNameError
from iac_core.searches.interface import DONE, IDLE, NoCandidate, ask_one
from iac_core.searches.mixed_block import MixedBlockSpace
from iac_core.searches.mixed_block_settings import KINDS, MASKS, MixedBlockSpaceSettings
from iac_core.searches.record import Record
from iac_core.searches.searchers import (
    SEARCHERS,
    EvolutionSettings,
    LocalSearchSettings,
    RandomSearchSettings,
    SuccessiveHalvingSettings,
    mixed_block_search,
)
from iac_core.searches.settings import OneShotSettings
from iac_core.searches.successive_halving import rung_sizes

SMALL = MixedBlockSpace(MixedBlockSpaceSettings(n_nodes=6, n_levels=3))
SETTINGS = {
    "local_search": LocalSearchSettings(),
    "random_search": RandomSearchSettings(),
    "evolution": EvolutionSettings(population=8, tournament=3, lag=3),
    "successive_halving": SuccessiveHalvingSettings(budgets=(1, 2, 4), reduction=2),
}
every_searcher = pytest.mark.parametrize("name", sorted(SEARCHERS))
every_space = pytest.mark.parametrize("case", SEARCH_SPACES.values(), ids=SEARCH_SPACES)


def build(name, space, *, n=30, seed=0, start=None, record=None):
    return SEARCHERS[name].build(
        SETTINGS[name],
        space,
        n_evaluations=n,
        seed=seed,
        start=start,
        record=Record() if record is None else record,
    )


def n_asked(name, n):
    """The scores that a search of a budget asks for, in a space that is large enough."""
    given = SETTINGS[name]
    if name != "successive_halving":
        return n
    return min(n, sum(rung_sizes(n, len(given.budgets), given.reduction)))


def test_every_searcher_of_the_table_is_tested():
    assert set(SETTINGS) == set(SEARCHERS)
    for name, settings in SETTINGS.items():
        assert type(settings) is SEARCHERS[name].Settings


@every_space
@every_searcher
def test_a_search_with_enough_budget_finds_the_best_candidate(name, case):
    record = run_search(build(name, case.space, n=4 * case.n), case.score).record
    best = record.best().candidate
    assert case.score(best) == max(map(case.score, all_candidates(case.space)))


@every_space
@every_searcher
def test_only_valid_candidates_are_asked_each_once_and_the_budget_is_kept(name, case):
    for n in (1, 2, 7, 30):
        record = run_search(build(name, case.space, n=n), case.score).record
        assert_each_once(record, n_asked(name, n))
        for proposal in record.proposals:
            assert case.space.is_valid(proposal.candidate)
            assert case.space.canonical(proposal.candidate) == proposal.candidate


@every_space
@every_searcher
def test_the_order_in_which_answers_come_decides_nothing(name, case):
    expected = run_search(build(name, case.space), case.score).record.history
    one_by_one = run_search(build(name, case.space), case.score, n=1)
    assert one_by_one.record.history == expected
    for seed in range(3):
        search = run_in_any_order(build(name, case.space), seed, case.score)
        assert search.record.history == expected


@every_space
@every_searcher
def test_a_killed_search_asks_again_for_the_same_and_goes_on(name, case):
    expected = run_search(build(name, case.space), case.score).record
    killed = build(name, case.space)
    stored = {}
    for _ in range(13):
        proposal = ask_one(killed)
        stored[proposal.candidate, proposal.budget] = case.score(proposal.candidate)
        killed.tell(proposal, stored[proposal.candidate, proposal.budget])
    killed.ask()  # what was asked and never answered is asked again
    again, n_found = build(name, case.space), 0
    while not isinstance(asked := again.ask(), NoCandidate):
        for proposal in reversed(asked):
            key = proposal.candidate, proposal.budget
            n_found += key in stored
            again.tell(proposal, stored.get(key, case.score(proposal.candidate)))
    assert n_found == 13
    assert again.record.history == expected.history


@every_space
@every_searcher
def test_another_seed_gives_another_search(name, case):
    first, other = (run_search(build(name, case.space, seed=seed)).record for seed in range(2))
    assert first.history != other.history


@every_searcher
def test_a_search_that_needs_a_missing_score_is_idle_and_one_with_nothing_left_is_done(name):
    search, waiting, pauses = build(name, Words(), n=60), [], []
    while not (pauses and pauses[-1] is DONE and not waiting):
        asked = search.ask()
        if isinstance(asked, NoCandidate):
            pauses.append(asked)
            assert waiting or asked is DONE, "an idle search waits for a score"
        else:
            waiting += asked
        if waiting:
            proposal = waiting.pop(0)
            search.tell(proposal, toy_score(proposal.candidate))
    n_idle = pauses.count(IDLE)
    assert pauses == n_idle * [IDLE] + (len(pauses) - n_idle) * [DONE]
    assert (n_idle > 0) == (name != "random_search")
    assert search.ask() is search.ask(1) is DONE
    assert ask_one(search) is None


@every_searcher
def test_a_score_that_is_no_number_is_worse_than_any_and_the_search_goes_on(name):
    search = run_search(
        build(name, Words(4, 3)), lambda word: math.nan if word[0] else toy_score(word)
    )
    assert search.record.best().candidate[0] == 0
    dead = run_search(build(name, Words()), lambda _: math.nan).record
    assert_each_once(dead, n_asked(name, 30))


@every_searcher
def test_equal_scores_keep_the_first(name):
    record = run_search(build(name, Words()), lambda _: 1.0).record
    largest = max(proposal.budget or 0 for proposal in record.proposals)
    expected = next(one for one in record.proposals if (one.budget or 0) == largest)
    assert record.best() == expected


@every_searcher
def test_a_search_goes_on_with_a_record_and_is_told_open_candidates_alone(name):
    record = Record()
    known = record.add(Words().sample(np.random.default_rng(0)))
    with pytest.raises(ConfigError, match="must have all its scores"):
        build(name, Words(), record=record)
    record.tell(known, 0.5)
    search = run_search(build(name, Words(), record=record))
    assert search.record is record
    assert_each_once(record, 1 + n_asked(name, 30))
    with pytest.raises(ConfigError, match="a candidate that waits for one"):
        search.tell(known, 1.0)
    foreign = ask_one(build(name, Words(), seed=9))
    with pytest.raises(ConfigError, match="a candidate that waits for one"):
        search.tell(foreign, 1.0)
    with pytest.raises(ConfigError, match="n must be at least 1"):
        search.ask(0)


@every_searcher
def test_settings_of_searchers_are_checked(name):
    with pytest.raises(ConfigError, match="n_evaluations must be at least 1"):
        SEARCHERS[name].Settings(n_evaluations=0)
    with pytest.raises(ConfigError, match="n_evaluations must be at least 1"):
        build(name, Words(), n=0)


def phases(name, mask, *, n=88, seed=0):
    """Budgets of which successive halving uses every score: 31 + 10 + 3, or twice that."""
    settings = SEARCHERS[name].Settings(n_evaluations=n)
    return mixed_block_search(settings, SMALL, MASKS[mask], seed=seed)


@pytest.mark.parametrize("mask", ["mixed_block", "bilevel"])
@every_searcher
def test_searches_of_phases_keep_the_contract_too(name, mask):
    expected = run_search(phases(name, mask)).record
    assert_each_once(expected, 88)
    assert all(SMALL.is_valid(proposal.candidate) for proposal in expected.proposals)
    for seed in range(2):
        search = run_in_any_order(phases(name, mask), seed)
        assert search.record.history == expected.history
    assert run_search(phases(name, mask, seed=1)).record.history != expected.history


@every_searcher
def test_phases_free_other_variables_and_go_on_from_the_best(name):
    record = run_search(phases(name, "bilevel", n=81)).record
    assert_each_once(record, 81)
    first, second = record.proposals[:41], record.proposals[41:]
    for proposal in first:
        assert {(node.block, node.kernel) for node in proposal.candidate.nodes} == {("vgg", 3)}
    scores = dict(record.history)
    largest = max(proposal.budget or 0 for proposal in first)
    finished = [proposal for proposal in first if (proposal.budget or 0) == largest]
    best = max(finished, key=scores.__getitem__)
    free = KINDS.index("kernel")
    for proposal in second:
        pairs = zip(SMALL.encode(best.candidate), SMALL.encode(proposal.candidate), strict=True)
        assert {place % 4 for place, (one, other) in enumerate(pairs) if one != other} <= {free}
    if name == "local_search":
        assert second[0].parent == best.order  # the start is known and costs nothing
        assert second[0].round == first[-1].round + 1


def test_budgets_of_phases_are_settings():
    settings = LocalSearchSettings(n_evaluations=50)
    search = run_search(
        mixed_block_search(settings, SMALL, MASKS["bilevel"], seed=0, n_evaluations=(10, 20))
    )
    assert_each_once(search.record, 30)
    for budgets in ((10,), (0, 10), (1, 2, 3)):
        with pytest.raises(ConfigError, match="give each of 2 phases at least 1"):
            mixed_block_search(settings, SMALL, MASKS["bilevel"], seed=0, n_evaluations=budgets)
    with pytest.raises(UnknownNameError, match="must be those of a searcher"):
        mixed_block_search(OneShotSettings(), SMALL, MASKS["macro"], seed=0)


def test_a_phase_without_anything_new_is_passed_over():
    one = MixedBlockSpace(MixedBlockSpaceSettings(n_nodes=4, n_levels=2, kernels=(3,)))
    settings = LocalSearchSettings(n_evaluations=20)
    search = run_search(mixed_block_search(settings, one, MASKS["bilevel"], seed=0))
    assert len(search.record.proposals) == 10
