"""What every operation pruner must do; a new entry of the table is tested by being there."""

import numpy as np
import pytest
from pruner_states import drive, state

from iac_core.pruners import OPERATION_PRUNERS, build_pruner


@pytest.fixture(params=sorted(OPERATION_PRUNERS))
def make(request):
    settings = OPERATION_PRUNERS[request.param].Settings()
    return lambda: build_pruner(settings)


def settling_alphas(seed, n_epochs=60):
    """Logits that drift at first and then stand still, with a little noise."""
    generator = np.random.default_rng(seed)
    goal = generator.normal(size=(1, 5, 8)) * 1.5
    return [
        goal * (1 - np.exp(-epoch / 6)) + generator.normal(size=goal.shape) * 1e-3
        for epoch in range(n_epochs)
    ]


@pytest.mark.parametrize("seed", range(3))
def test_pruner_never_revives_empties_or_starves(make, seed):
    decisions, _ = drive(make(), settling_alphas(seed))
    assert decisions


def test_pruner_goes_on_from_its_saved_state_with_the_same_decisions(make):
    alphas = settling_alphas(0)
    whole, _ = drive(make(), alphas)
    first, second = make(), make()
    active = np.ones((1, 5, 8), dtype=bool)
    for epoch in range(len(whole)):
        if epoch == len(whole) // 2:
            second.load_state_dict(first.state_dict())
        pruner = first if epoch < len(whole) // 2 else second
        decision = pruner.decide(state(alphas[: epoch + 1], active))
        assert np.array_equal(decision.keep, whole[epoch].keep)
        assert decision.stop == whole[epoch].stop
        active = decision.keep.copy()


def test_pruner_gives_a_reason_for_every_edge_that_loses_operations(make):
    decisions, _ = drive(make(), settling_alphas(1))
    active = np.ones((1, 5, 8), dtype=bool)
    for decision in decisions:
        lost = {tuple(place) for place in np.argwhere((active & ~decision.keep).any(axis=-1))}
        assert lost == {(r.level, r.edge) for r in decision.reasons if r.operations}
        active = decision.keep
