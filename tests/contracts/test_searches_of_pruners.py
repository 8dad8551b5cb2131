"""What the search of every operation pruner must do; run for real, at the smallest size.

Searches are given a truth to find: each edge's loss falls with the importance of one operation.
"""

import numpy as np
import pytest
import torch

from iac_core.backbones import build_backbone
from iac_core.backbones.unet import UNetSettings
from iac_core.config import CellSettings, SearchPace, SearchSettings
from iac_core.errors import StopRequested
from iac_core.pruners import OPERATION_PRUNERS, build_pruner
from iac_core.pruners.evidence import GRADIENT_SUMS
from iac_core.pruners.hessian_stop import HessianStopSettings
from iac_core.pruners.js_absolute import JsAbsoluteSettings
from iac_core.pruners.js_stability import JsStabilityFastSettings, JsStabilitySettings
from iac_core.pruners.magnitude import MagnitudeSettings
from iac_core.pruners.shapley import ShapleyFastSettings, ShapleySettings
from iac_core.pruners.stop_at_epoch import StopAtEpochSettings
from iac_core.training.search import search
from iac_core.types import SilentReporter

EAGER = {
    "js_stability": JsStabilitySettings(window_epochs=1, patience_epochs=1, noise_factor=1e3),
    "js_stability_fast": JsStabilityFastSettings(window_epochs=1, pace=SearchPace()),
    "js_absolute": JsAbsoluteSettings(window_epochs=1, patience_epochs=1, threshold=10.0),
    "shapley": ShapleySettings(n_slices=2, max_cost_share=10.0, every_epochs=2),
    "shapley_fast": ShapleyFastSettings(n_slices=2, max_cost_share=10.0),
    "magnitude": MagnitudeSettings(weak_share=1.0),
    "hessian_stop": HessianStopSettings(first_stop_measurement=3, lag=1, smoothing=1, factor=1e-3),
    "stop_at_epoch": StopAtEpochSettings(epochs=6),
}
"""Settings under which a pruner acts within a dozen epochs, where its defaults do not."""

SEARCH = SearchSettings(
    epochs=14, batch_size=4, steps_per_epoch=4, alpha_warmup_epochs=1, checkpoint_every_epochs=3
)
PLANT = np.array([3, 5, 4, 6, 2])
"""Planted operation of each edge."""


def plant(size):
    """A penalty of the importance that the planted operations do not have."""

    def penalty(importance):
        return -size * importance[0, torch.arange(5), torch.from_numpy(PLANT)].sum()

    return penalty


class StopsAtEpoch(SilentReporter):
    def __init__(self, epoch):
        self.epoch, self.seen = epoch, 0

    def progress(self, *, epoch, n_epochs, **values):
        self.seen = epoch

    def should_stop(self):
        return self.seen == self.epoch


def run(name, room, *, settings=SEARCH, size=10.0, rules=None):
    backbone = build_backbone(UNetSettings(widths=(8, 16)), n_channels=1, n_classes=4, seed=0)
    return search(
        backbone,
        build_pruner(rules or EAGER.get(name) or OPERATION_PRUNERS[name].Settings()),
        room,
        cell=CellSettings(n_nodes=2),
        settings=settings,
        seed=3,
        architecture_penalty=plant(size) if size else None,
    )


@pytest.fixture(params=sorted(OPERATION_PRUNERS))
def name(request):
    return request.param


def test_a_search_is_the_same_again_and_when_it_was_stopped(name, make_room):
    torch.manual_seed(1)
    whole = run(name, make_room("whole"))
    if name not in ("none", "genotype_stability"):
        acted = (~whole.active[-1]).any() or any(event["edge"] == -1 for event in whole.events)
        assert acted or len(whole.curve) < SEARCH.epochs, "nothing happened in this search"
    torch.manual_seed(2)
    middle = max(1, len(whole.curve) // 2)
    with pytest.raises(StopRequested):
        run(name, make_room("stopped", StopsAtEpoch(middle)))
    resumed = run(name, make_room("stopped"))
    assert resumed.genotype == whole.genotype
    for array in ("alpha", "beta", "active", "jsd", "beta_jsd", *GRADIENT_SUMS, "n_alpha_steps"):
        assert np.array_equal(getattr(resumed, array), getattr(whole, array), equal_nan=True)
    assert resumed.looks == whole.looks
    assert np.array_equal(resumed.evidence.alive_since, whole.evidence.alive_since)
    assert np.array_equal(resumed.contribution, whole.contribution)
    timed = {"seconds"}
    assert [{k: v for k, v in event.items() if k not in timed} for event in resumed.events] == [
        {k: v for k, v in event.items() if k not in timed} for event in whole.events
    ]


def test_a_search_that_stops_at_an_epoch_is_the_full_one_until_then(make_room):
    whole, found = run("none", make_room("whole")), run("stop_at_epoch", make_room("found"))
    assert len(found.curve) == 6
    assert np.array_equal(found.alpha, whole.alpha[:6])
    assert np.array_equal(found.beta, whole.beta[:6])
    (event,) = found.events
    assert (event["rule"], event["epoch"], event["edge"]) == ("epochs_run", 5, -1)
    real = [name != "none" for name in found.operations]
    chosen = {(edge.source, edge.target): edge.operation for edge in found.genotype.level(0)}
    for edge, place in enumerate(found.edges):
        if place in chosen:
            best = np.where(real, whole.alpha[5, 0, edge], -np.inf).argmax()
            assert chosen[place] == found.operations[best]


LONG = SearchSettings(epochs=40, batch_size=4, steps_per_epoch=4, alpha_warmup_epochs=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["js_stability", "js_stability_fast"])
def test_a_planted_operation_is_found_in_a_real_supernet(make_room, name):
    found = run(name, make_room(), settings=LONG, rules=OPERATION_PRUNERS[name].Settings())
    # After the last pruning, which `active` shows from the next epoch on.
    kept = [set(found.operations) for _ in found.edges]
    for event in found.events:
        if event["edge"] >= 0:
            kept[event["edge"]] -= set(event["operations"])
    assert all(found.operations[k] in left for k, left in zip(PLANT, kept, strict=True))
    assert np.mean([len(left) <= 4 for left in kept]) >= 0.9
    assert found.live_edge_share == 1
    chosen = {(edge.source, edge.target): edge.operation for edge in found.genotype.level(0)}
    truth = {edge: found.operations[k] for edge, k in zip(found.edges, PLANT, strict=True)}
    assert chosen.items() <= truth.items()


@pytest.mark.slow
def test_a_real_supernet_that_never_prunes_keeps_everything_and_is_as_alive(make_room):
    found = run("none", make_room(), settings=LONG)
    assert found.active.all()
    assert found.live_edge_share == 1
