"""Local search, random search and sequences of searches on toy fitness functions."""

import math

import numpy as np
import pytest

from iac_core.errors import ConfigError, UnknownNameError
from iac_core.searches.mixed_block import MixedBlockSpace
from iac_core.searches.mixed_block_settings import KINDS, MASKS, MixedBlockSpaceSettings
from iac_core.searches.record import Record
from iac_core.searches.rounds import local_search, random_search
from iac_core.searches.searchers import (
    SEARCHERS,
    EvolutionSettings,
    LocalSearchSettings,
    RandomSearchSettings,
    mixed_block_search,
)
from iac_core.searches.settings import OneShotSettings

SMALL = MixedBlockSpace(MixedBlockSpaceSettings(n_nodes=6, n_levels=3))
MICRO = SMALL.masked(("block", "kernel"))


class Words:
    """Words of some letters out of a few: a space without repair."""

    def __init__(self, n_places=8, n_letters=5):
        self.n_places, self.n_letters = n_places, n_letters

    @property
    def variables(self):
        return tuple(map(str, range(self.n_places)))

    def sample(self, generator):
        return tuple(generator.integers(self.n_letters, size=self.n_places).tolist())

    def neighbours(self, candidate, variable):
        place = int(variable)
        return [
            (*candidate[:place], letter, *candidate[place + 1 :])
            for letter in range(self.n_letters)
            if letter != candidate[place]
        ]

    def mutate(self, candidate, generator):
        options = self.neighbours(candidate, str(generator.integers(self.n_places)))
        return options[int(generator.integers(len(options)))]


def separable(word):
    return -sum(abs(letter - (3 * place) % 5) for place, letter in enumerate(word))


def noise(candidate):
    """A fitness without structure, the same for a candidate at every call."""
    digits = [ord(letter) for letter in str(candidate)]
    return float(np.random.default_rng(digits).normal())


def run(search, score=separable, *, n=None):
    """Told in the order of the numbers."""
    while not search.is_done:
        for proposal in search.ask(n):
            search.tell(proposal.order, score(proposal.candidate))
    return search


def assert_each_once(record, n):
    candidates = [proposal.candidate for proposal, _ in record.history]
    assert len(candidates) == len(set(candidates)) == n
    assert [proposal.order for proposal, _ in record.history] == list(range(n))


@pytest.mark.parametrize("seed", range(10))
def test_local_search_reaches_the_optimum_of_a_separable_fitness_in_one_pass(seed):
    space = Words()
    search = local_search(space, n_evaluations=1000, seed=seed, n_restarts=0)
    run(search)
    # A start and the four other letters of each of eight places are the first pass. The second
    # finds nothing better; what it shares with the first is not asked again.
    assert search.record.best().order <= 8 * 4
    assert separable(search.record.best().candidate) == 0
    n = len(search.record.proposals)
    assert_each_once(search.record, n)
    assert n < 1 + 2 * 8 * 4


def test_local_search_reaches_the_best_blocks_and_kernels_in_one_pass():
    effects = np.random.default_rng(0).normal(size=(6, 4 * 3))

    def score(genotype):
        values = MICRO.encode(genotype)
        return sum(
            effects[node, block] + effects[node, 4 + kernel]
            for node, (block, kernel) in enumerate(zip(values[1::4], values[2::4], strict=True))
        )

    search = run(local_search(MICRO, n_evaluations=1000, seed=1, n_restarts=0), score)
    assert_each_once(search.record, len(search.record.proposals))
    assert search.record.best().order <= 6 * 3 + 6 * 2
    best = effects[:, :4].max(axis=1).sum() + effects[:, 4:7].max(axis=1).sum()
    assert score(search.record.best().candidate) == pytest.approx(best)


def test_all_options_of_a_variable_are_asked_at_once_and_the_best_is_kept():
    space = Words()
    search = local_search(space, n_evaluations=100, seed=4)
    (start,) = search.ask()
    assert search.ask() == []
    search.tell(0, separable(start.candidate))
    current, seen = start, set()
    for number in range(1, 9):
        asked = search.ask()
        assert len(asked) == 4
        assert search.ask() == []
        (variable,) = {proposal.variable for proposal in asked}
        assert {(proposal.round, proposal.parent) for proposal in asked} == {
            (number, current.order)
        }
        assert {proposal.candidate for proposal in asked} == set(
            space.neighbours(current.candidate, variable)
        )
        for proposal in asked:
            search.tell(proposal.order, separable(proposal.candidate))
        best = max(asked, key=lambda each: separable(each.candidate))
        if separable(best.candidate) > separable(current.candidate):
            current = best
        seen.add(variable)
    assert seen == set(space.variables)


def test_equal_scores_keep_the_candidate():
    search = run(local_search(Words(), n_evaluations=100, seed=0, n_restarts=0), lambda _: 1.0)
    assert {proposal.parent for proposal, _ in search.record.history} == {None, 0}


def test_the_best_option_is_taken_not_the_first_that_is_better():
    scores = {(0,): 0.0, (1,): 1.0, (2,): 3.0, (3,): 2.0}
    space = Words(1, 4)
    search = run(
        local_search(space, n_evaluations=9, seed=0, start=(0,), n_restarts=0),
        lambda candidate: scores[candidate],
    )
    assert search.record.best().candidate == (2,)


def test_a_local_optimum_before_the_budget_ends_is_followed_by_new_random_starts():
    search = run(local_search(SMALL, n_evaluations=400, seed=3), noise)
    assert_each_once(search.record, 400)
    starts = [proposal for proposal in search.record.proposals if proposal.parent is None]
    assert len(starts) > 1
    # Up to each restart a descent is a local optimum: no neighbour of its end is better.
    once = run(local_search(SMALL, n_evaluations=400, seed=3, n_restarts=0), noise)
    n = len(once.record.proposals)
    assert once.record.history == search.record.history[:n]
    assert starts[1].order == n
    end = once.record.best().candidate
    for name in SMALL.variables:
        for neighbour in SMALL.neighbours(end, name):
            assert noise(neighbour) <= noise(end)


@pytest.mark.parametrize("budget", [1, 2, 7, 30])
def test_the_budget_is_kept_even_within_a_round(budget):
    search = run(local_search(Words(), n_evaluations=budget, seed=0))
    assert_each_once(search.record, budget)
    whole = run(local_search(Words(), n_evaluations=100, seed=0))
    assert search.record.history == whole.record.history[:budget]


def test_a_small_space_is_seen_whole_and_the_search_ends():
    for search in (
        local_search(Words(2, 3), n_evaluations=100, seed=0),
        random_search(Words(2, 3), n_evaluations=100, seed=0),
    ):
        assert_each_once(run(search, noise).record, 9)


def test_a_score_that_is_no_number_is_worse_than_any_and_the_search_goes_on():
    search = local_search(Words(), n_evaluations=40, seed=0)
    run(search, lambda word: math.nan if word[0] else separable(word))
    assert search.record.best().candidate[0] == 0
    dead = run(local_search(Words(), n_evaluations=40, seed=0), lambda _: math.nan)
    assert_each_once(dead.record, 40)


def searches(seed=0):
    """Every searcher on the whole space and in the two phases of Bilevel-NAS."""
    given = (
        LocalSearchSettings(n_evaluations=90),
        RandomSearchSettings(n_evaluations=90),
        EvolutionSettings(n_evaluations=90, population=12, tournament=4),
    )
    return [
        (lambda each=each, name=name: mixed_block_search(each, SMALL, MASKS[name], seed=seed))
        for each in given
        for name in ("mixed_block", "bilevel")
    ]


@pytest.mark.parametrize("make", searches())
def test_the_same_answers_give_the_same_trace_in_whatever_order_they_come(make):
    expected = run(make(), noise).record
    assert_each_once(expected, 90)
    for seed in range(3):
        generator = np.random.default_rng(seed)
        search, waiting = make(), []
        while not search.is_done or waiting:
            waiting += search.ask(int(generator.integers(1, 9)))
            proposal = waiting.pop(int(generator.integers(len(waiting))))
            search.tell(proposal.order, noise(proposal.candidate))
        assert search.record.history == expected.history


@pytest.mark.parametrize("make", searches())
def test_a_killed_search_resumes_by_being_asked_again_and_told_what_was_known(make):
    expected = run(make(), noise).record
    known = {proposal.candidate: score for proposal, score in expected.history[:53]}
    search, waiting = make(), []
    asked_twice = 0
    while not search.is_done or waiting:
        waiting += search.ask()
        proposal = waiting.pop(0)
        asked_twice += proposal.candidate in known
        search.tell(proposal.order, known.get(proposal.candidate, noise(proposal.candidate)))
    assert asked_twice == 53
    assert search.record.history == expected.history


@pytest.mark.parametrize("index", range(6))
def test_another_seed_gives_another_search(index):
    first, other = run(searches(0)[index](), noise), run(searches(1)[index](), noise)
    assert first.record.history != other.record.history


def test_random_search_asks_for_everything_at_once():
    search = random_search(SMALL, n_evaluations=60, seed=2)
    assert len(search.ask(25)) == 25
    assert len(search.ask()) == 35
    assert search.is_done
    assert search.ask() == []


@pytest.mark.parametrize(
    "settings",
    [LocalSearchSettings(n_evaluations=81), EvolutionSettings(n_evaluations=81, population=9)],
)
def test_phases_free_other_variables_and_go_on_from_the_best(settings):
    search = run(mixed_block_search(settings, SMALL, MASKS["bilevel"], seed=0), noise)
    record = search.record
    assert_each_once(record, 81)
    first, second = record.proposals[:41], record.proposals[41:]
    for proposal in first:
        assert {(node.block, node.kernel) for node in proposal.candidate.nodes} == {("vgg", 3)}
    scores = dict(record.history)
    best = max(first, key=lambda proposal: scores[proposal])
    free = KINDS.index("kernel")
    for proposal in second:
        pairs = zip(SMALL.encode(best.candidate), SMALL.encode(proposal.candidate), strict=True)
        assert {place % 4 for place, (one, other) in enumerate(pairs) if one != other} == {free}
    if isinstance(settings, LocalSearchSettings):
        assert second[0].parent == best.order  # the start is known and costs nothing
        assert second[0].round == first[-1].round + 1


def test_budgets_of_phases_are_settings():
    settings = LocalSearchSettings(n_evaluations=50)
    search = run(
        mixed_block_search(settings, SMALL, MASKS["bilevel"], seed=0, n_evaluations=(10, 20)),
        noise,
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
    search = run(mixed_block_search(settings, one, MASKS["bilevel"], seed=0), noise)
    assert search.is_done
    assert len(search.record.proposals) == 10


@pytest.mark.parametrize("name", sorted(SEARCHERS))
def test_every_searcher_takes_a_record_and_tells_open_candidates_alone(name):
    searcher, record = SEARCHERS[name], Record()
    known = record.add(Words().sample(np.random.default_rng(0)))
    with pytest.raises(ConfigError, match="must have all its scores"):
        build(searcher, record)
    record.tell(known.order, 0.5)
    search = build(searcher, record)
    run(search)
    assert_each_once(search.record, 31)
    for order in (-1, 0, 99):
        with pytest.raises(ConfigError, match="a candidate that waits for one"):
            search.tell(order, 1.0)
    with pytest.raises(ConfigError, match="n must be at least 1"):
        search.ask(0)


def build(searcher, record):
    settings = searcher.Settings()
    return searcher.build(settings, Words(), n_evaluations=30, seed=0, start=None, record=record)


@pytest.mark.parametrize("name", sorted(SEARCHERS))
def test_settings_of_searchers_are_checked(name):
    with pytest.raises(ConfigError, match="n_evaluations must be at least 1"):
        SEARCHERS[name].Settings(n_evaluations=0)
