import numpy as np
import pytest

from iac_core.backbones import build_backbone
from iac_core.backbones.unet import UNetSettings
from iac_core.config import CellSettings, SearchPace, SearchSettings
from iac_core.errors import ConfigError
from iac_core.pruners.js_absolute import JsAbsolute, JsAbsoluteSettings
from iac_core.training.search import Search


def make(room, pace):
    network = build_backbone(UNetSettings(widths=(8, 16)), n_channels=1, n_classes=4, seed=0)
    return Search(
        network,
        JsAbsolute(JsAbsoluteSettings(pace=pace)),
        room,
        CellSettings(n_nodes=2),
        SearchSettings(epochs=20, batch_size=4, steps_per_epoch=8, alpha_warmup_epochs=15),
        0,
    )


def test_the_default_pace_changes_nothing(make_room):
    run = make(make_room(), SearchPace())
    assert run.alpha_rate == pytest.approx(0.15 / 8)
    assert run.alpha_warmup_epochs == 15
    assert run.steps_of_epoch() == 8


def test_a_pace_shortens_the_warm_up_and_quickens_alpha(make_room):
    run = make(make_room(), SearchPace(alpha_warmup_epochs=1, alpha_rate_factor=2.0))
    assert run.alpha_rate == pytest.approx(2 * 0.15 / 8)
    before = run.architecture.alpha.detach().clone()
    run.run_epoch()
    assert (run.architecture.alpha == before).all()
    run.run_epoch()
    assert (run.architecture.alpha != before).all()
    assert [row["n_architecture_steps"] for row in run.progress.curve] == [0, 8]


def test_epochs_grow_from_a_share_to_the_whole_as_operations_go(make_room):
    run = make(make_room(), SearchPace(start_share=0.25))
    assert run.steps_of_epoch() == 2
    keep = np.ones((1, 5, 8), dtype=bool)
    keep[..., 4:] = False
    run.remove_operations(keep)
    # 20 of the 35 operations that can go are gone.
    assert run.steps_of_epoch() == round(8 * (0.25 + 0.75 * 20 / 35))
    keep[..., 1:] = False
    run.remove_operations(keep)
    assert run.steps_of_epoch() == 8


def test_a_short_epoch_draws_from_a_fixed_subset(make_room):
    run = make(make_room(), SearchPace(start_share=0.25))
    seen = set()
    for epoch in range(60):
        run.progress.epoch = epoch
        seen |= set(run._order("weights", run.weight_slices, 2).ravel().tolist())
    n_kept = max(round(len(run.weight_slices) * 0.25), 4)
    assert len(seen) == n_kept < len(run.weight_slices)


@pytest.mark.parametrize(
    "changes",
    [{"alpha_warmup_epochs": -1}, {"alpha_rate_factor": 0.0}, {"start_share": 0.0}],
)
def test_a_pace_out_of_range_is_refused(changes):
    with pytest.raises(ConfigError, match="must be"):
        SearchPace(**changes)
