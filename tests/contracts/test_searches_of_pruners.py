"""What the search of every operation pruner must do; run for real, at the smallest size."""

import numpy as np
import pytest
import torch

from iac_core.backbones import build_backbone
from iac_core.backbones.unet import UNetSettings
from iac_core.config import CellSettings, SearchSettings
from iac_core.errors import StopRequested
from iac_core.pruners import OPERATION_PRUNERS, build_pruner
from iac_core.pruners.hessian_stop import HessianStopSettings
from iac_core.pruners.js_stability import JsStabilitySettings
from iac_core.pruners.magnitude import MagnitudeSettings
from iac_core.pruners.shapley import ShapleyFastSettings, ShapleySettings
from iac_core.training.search import search
from iac_core.types import SilentReporter

EAGER = {
    "js_stability": JsStabilitySettings(window_epochs=1, patience_epochs=1, threshold=1.0),
    "shapley": ShapleySettings(n_slices=2, max_cost_share=10.0, every_epochs=2),
    "shapley_fast": ShapleyFastSettings(n_slices=2, max_cost_share=10.0),
    "magnitude": MagnitudeSettings(weak_share=1.0),
    "hessian_stop": HessianStopSettings(first_stop_measurement=3, lag=1, smoothing=1, factor=1e-3),
}
"""Settings under which a pruner acts within a dozen epochs, where its defaults do not."""

SEARCH = SearchSettings(
    epochs=12, batch_size=4, steps_per_epoch=2, alpha_warmup_epochs=1, checkpoint_every_epochs=3
)


class StopsAtEpoch(SilentReporter):
    def __init__(self, epoch):
        self.epoch, self.seen = epoch, 0

    def progress(self, *, epoch, n_epochs, **values):
        self.seen = epoch

    def should_stop(self):
        return self.seen == self.epoch


def run(name, room):
    backbone = build_backbone(UNetSettings(widths=(8, 16)), n_channels=1, n_classes=4, seed=0)
    settings = EAGER.get(name) or OPERATION_PRUNERS[name].Settings()
    return search(
        backbone,
        build_pruner(settings),
        room,
        cell=CellSettings(n_nodes=2, form="replace"),
        settings=SEARCH,
        seed=3,
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
    for array in ("alpha", "beta", "active", "jsd", "beta_jsd"):
        assert np.array_equal(getattr(resumed, array), getattr(whole, array), equal_nan=True)
    timed = {"seconds"}
    assert [{k: v for k, v in event.items() if k not in timed} for event in resumed.events] == [
        {k: v for k, v in event.items() if k not in timed} for event in whole.events
    ]
