import numpy as np
import pytest
from pruner_states import additive_values, drive, state

from iac_core.config import OPERATION_NAMES, SearchPace
from iac_core.errors import ConfigError
from iac_core.pruners.shapley import Shapley, ShapleyFast, ShapleyFastSettings, ShapleySettings

ALL = np.ones((1, 5, 8), dtype=bool)


def flat_alphas(n_epochs=60):
    return [np.zeros((1, 5, 8)) for _ in range(n_epochs)]


def worth_of_operations():
    """What each operation adds in the game of `pruner_states`."""
    masks = np.zeros((40, 1, 5, 8), dtype=bool)
    masks.reshape(40, 40)[np.arange(40), np.arange(40)] = True
    return (additive_values(masks) - 1).reshape(5, 8)


def settings(**changes):
    return ShapleySettings(**{"n_slices": 8, "truncation": 0.0, "max_cost_share": 1.0, **changes})


def test_a_round_removes_the_operation_of_least_worth_on_each_edge():
    decisions, _ = drive(Shapley(settings()), flat_alphas(6))
    first = next(decision for decision in decisions if decision.reasons)
    worth = worth_of_operations()
    for reason in first.reasons:
        if reason.edge >= 0:
            assert reason.rule == "shapley_value"
            assert reason.operations == (OPERATION_NAMES[worth[reason.edge].argmin()],)
            assert reason.value == pytest.approx(worth[reason.edge].min())


def test_rounds_go_on_until_each_edge_has_one_operation_of_most_worth():
    decisions, active = drive(Shapley(settings(every_epochs=1, momentum=0.0)), flat_alphas())
    assert decisions[-1].stop
    assert (active.sum(axis=-1) == 1).all()
    kept = active[0].argmax(axis=-1)
    worth = worth_of_operations()
    best = [row[1:].argmax() + 1 if row.argmax() == 0 else row.argmax() for row in worth]
    into_last = [2, 3, 4]
    assert list(kept[:2]) == best[:2], "a node of two edges cannot lose one to none"
    assert sum(kept[edge] == best[edge] for edge in into_last) >= 2


def test_scoring_never_costs_more_than_its_cap_and_says_what_it_cost():
    pruner = Shapley(settings(max_cost_share=0.25, every_epochs=1, significance=0.0))
    spent = []
    for epoch in range(30):
        now = state(flat_alphas(epoch + 1), ALL)
        decision = pruner.decide(now)
        cost = [reason for reason in decision.reasons if reason.rule == "shapley_cost_share"]
        for reason in cost:
            spent.append(reason.value)
            assert reason.value <= reason.threshold == 0.25
    assert spent


def test_a_round_that_cannot_afford_one_sample_waits():
    pruner = Shapley(settings(max_cost_share=0.5, n_slices=256))
    epochs = []
    for epoch in range(30):
        if pruner.decide(state(flat_alphas(1) * (epoch + 1), ALL)).reasons:
            epochs.append(epoch)
            break
    # A pair of permutations of 40 players is 81 coalitions of 256 slices.
    assert epochs == [int(np.ceil(81 * 256 / (0.5 * 2 * 1000))) - 1]


def test_a_significant_ranking_ends_the_sampling():
    pruner = Shapley(settings(max_permutations=50))
    decision = pruner.decide(state(flat_alphas(1), ALL))
    cost = next(reason for reason in decision.reasons if reason.rule == "shapley_cost_share")
    # The game is additive: two pairs have no spread, and every gap is significant.
    assert cost.value == pytest.approx(2 * 81 * 8 / (2 * 1000))
    sampled = Shapley(settings(max_permutations=6, significance=0.0))
    decision = sampled.decide(state(flat_alphas(1), ALL))
    cost = next(reason for reason in decision.reasons if reason.rule == "shapley_cost_share")
    assert cost.value == pytest.approx(3 * 81 * 8 / (2 * 1000))


def test_candidates_below_the_cut_are_the_only_players():
    seen = []
    alphas = [np.tile(np.arange(8.0), (1, 5, 1))]
    now = state(alphas, ALL)

    def values_of(masks, scoring):
        seen.append(masks)
        return additive_values(masks)

    from dataclasses import replace

    pruner = Shapley(settings(candidate_share=0.5))
    pruner.decide(replace(now, values_of=values_of))
    masks = np.concatenate(seen)
    assert masks[..., 4:].all()
    assert not masks[..., :4].all()


def test_needed_candidates_are_kept_and_the_others_go_at_once():
    worth = np.zeros((1, 5, 8))
    worth[0, :, 1] = 1.0
    alphas = [np.tile(np.arange(8.0), (1, 5, 1))]

    def values_of(masks, scoring):
        return (masks * worth).sum(axis=(1, 2, 3))

    from dataclasses import replace

    pruner = Shapley(settings(candidate_share=0.5, removal="unneeded"))
    decision = pruner.decide(replace(state(alphas, ALL), values_of=values_of))
    assert decision.keep[0, :, [1, 4, 5, 6, 7]].all()
    assert not decision.keep[0, :, [0, 2, 3]].any()


def test_momentum_remembers_earlier_rounds():
    pruner = Shapley(settings(every_epochs=1))
    pruner.decide(state(flat_alphas(1), ALL))
    first = dict(pruner.state_dict()["scores"])
    pruner.decide(state(flat_alphas(2), ALL))
    second = pruner.state_dict()["scores"]
    assert second["0,0,1"] == pytest.approx(0.8 * first["0,0,1"] + first["0,0,1"])


def test_fast_settings_are_the_same_rules_with_other_defaults():
    fast = ShapleyFastSettings()
    assert isinstance(fast, ShapleySettings)
    assert fast.pace == SearchPace(alpha_warmup_epochs=2, alpha_rate_factor=2.0, start_share=0.5)
    assert ShapleySettings().pace == SearchPace()
    decisions, active = drive(ShapleyFast(fast), flat_alphas())
    assert decisions[-1].stop
    assert len(decisions) < 60
    assert (active.sum(axis=-1) == 1).all()


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"min_permutations": 1}, "at least 2"),
        ({"max_permutations": 1}, "at least min_permutations"),
        ({"n_slices": 257}, "at most 256"),
        ({"truncation": 1.0}, "truncation"),
        ({"measure": "negative_loss", "truncation": 0.5}, "negative_loss"),
        ({"momentum": 1.0}, "momentum"),
        ({"candidate_share": 1.5}, "candidate_share"),
        ({"max_cost_share": 0.0}, "max_cost_share"),
    ],
)
def test_settings_out_of_range_are_refused(changes, rule):
    with pytest.raises(ConfigError, match=rule):
        ShapleySettings(**changes)
