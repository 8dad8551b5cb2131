"""A stopped training goes on with the same result, bit for bit; so does a search."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from iac_core.backbones import build_backbone
from iac_core.backbones.external import ExternalSettings
from iac_core.backbones.unet import UNetSettings
from iac_core.cells.genotype import random_genotype
from iac_core.cells.implant import ImplantedNetwork
from iac_core.config import (
    AugmentationSettings,
    CellSettings,
    PretrainSettings,
    RetrainSettings,
    SearchSettings,
)
from iac_core.errors import NotFiniteError, SearchError, StopRequested
from iac_core.pruners.evidence import GRADIENT_SUMS
from iac_core.pruners.js_absolute import JsAbsolute, JsAbsoluteSettings
from iac_core.seeding import numpy_generator
from iac_core.training.pretrain import pretrain, train_longer
from iac_core.training.retrain import retrain
from iac_core.training.search import halves, search
from iac_core.types import Decision, SilentReporter

PRETRAIN = PretrainSettings(epochs=3, batch_size=4, steps_per_epoch=3, checkpoint_every_epochs=2)
SEARCH = SearchSettings(
    epochs=8, batch_size=4, steps_per_epoch=2, alpha_warmup_epochs=1, checkpoint_every_epochs=3
)
CELL = CellSettings(n_nodes=2, form="replace")


class StopAfter(SilentReporter):
    """Asks a stage to stop at its n-th step; then never again."""

    def __init__(self, n):
        self.left = n

    def should_stop(self):
        self.left -= 1
        return self.left == 0


def backbone():
    return build_backbone(UNetSettings(widths=(8, 16)), n_channels=1, n_classes=4, seed=0)


def eager_pruner():
    return JsAbsolute(
        JsAbsoluteSettings(
            window_epochs=1, patience_epochs=1, threshold=0.5, living_edges_only=False
        )
    )


def comparable(curve):
    timing = ("seconds", "ended_at")
    return [{k: str(v) for k, v in entry.items() if k not in timing} for entry in curve]


def run_pretrain(room):
    network = backbone()
    result = pretrain(network, room, PRETRAIN, seed=0)
    return result, network.state_dict()


def run_with_dropout(room):
    network = build_backbone(
        ExternalSettings(
            target="monai.networks.nets:BasicUNet",
            arguments={"spatial_dims": 2, "features": [4, 4, 4, 4, 4, 4], "dropout": 0.3},
            classes_argument="out_channels",
        ),
        n_channels=1, n_classes=4, seed=0,
    )  # fmt: skip
    result = pretrain(network, room, PRETRAIN, seed=0)
    return result, network.state_dict()


def run_retrain(scope):
    def run(room):
        genotype = random_genotype(CELL, 1, numpy_generator(0, "test"))
        network = ImplantedNetwork(backbone(), genotype, CELL, scope=scope, seed=0)
        settings = RetrainSettings(epochs=3, batch_size=4, steps_per_epoch=3, scope=scope)
        return retrain(network, room, settings, seed=0), network.state_dict()

    return run


TRAININGS = {
    "pretrain": run_pretrain, "dropout": run_with_dropout,
    "cell": run_retrain("cell"), "all": run_retrain("all"),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(TRAININGS))
@pytest.mark.parametrize(("stop_at", "augmented"), [(1, False), (5, False), (5, True), (8, False)])
def test_a_stopped_training_ends_as_an_undisturbed_one(make_room, name, stop_at, augmented):
    views = AugmentationSettings(enabled=augmented)
    calm, calm_state = TRAININGS[name](make_room("calm", augmentation=views))
    with pytest.raises(StopRequested):
        TRAININGS[name](make_room("stopped", StopAfter(stop_at), augmentation=views))
    resumed, state = TRAININGS[name](make_room("stopped", augmentation=views))
    assert comparable(resumed.curve) == comparable(calm.curve)
    assert (resumed.best_epoch, resumed.best_dice) == (calm.best_epoch, calm.best_dice)
    assert resumed.start_dice == calm.start_dice
    for key, value in calm.state.items():
        assert torch.equal(resumed.state[key], value)
    assert all(torch.equal(state[key], value) for key, value in calm_state.items())


def run_search(room, settings=SEARCH, cell=CELL, pruner=None):
    return search(backbone(), pruner or eager_pruner(), room, cell=cell, settings=settings, seed=0)


def assert_same_search(one, other):
    assert one.genotype == other.genotype
    for name in ("alpha", "beta", "importance", "active", "jsd", *GRADIENT_SUMS, "n_alpha_steps"):
        assert np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True)
    assert comparable(one.curve) == comparable(other.curve)
    assert comparable(one.events) == comparable(other.events)
    assert one.looks == other.looks
    assert np.array_equal(one.contribution, other.contribution)
    assert np.array_equal(one.evidence.alive_since, other.evidence.alive_since)
    assert np.array_equal(one.evidence.gradient_products, other.evidence.gradient_products)


@pytest.mark.parametrize(
    ("stop_at", "augmented"), [(2, False), (7, False), (7, True), (12, False)]
)
def test_a_stopped_search_ends_as_an_undisturbed_one(make_room, stop_at, augmented):
    views = AugmentationSettings(enabled=augmented)
    calm = run_search(make_room("calm", augmentation=views))
    assert any(event["operations"] for event in calm.events)
    with pytest.raises(StopRequested):
        run_search(make_room("stopped", StopAfter(stop_at), augmentation=views))
    assert_same_search(run_search(make_room("stopped", augmentation=views)), calm)


def test_a_search_lost_between_checkpoints_ends_as_an_undisturbed_one(make_room):
    class Killed(SilentReporter):
        def progress(self, *, epoch, n_epochs, **values):
            if epoch == 5:
                raise KeyboardInterrupt

    calm = run_search(make_room("calm"))
    with pytest.raises(KeyboardInterrupt):
        run_search(make_room("killed", Killed()))
    assert_same_search(run_search(make_room("killed")), calm)


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(make_room):
    one = run_search(make_room("one"))
    assert_same_search(run_search(make_room("two")), one)
    other = search(
        backbone(), eager_pruner(), make_room("other"), cell=CELL, settings=SEARCH, seed=1
    )
    assert not np.array_equal(other.alpha[-1], one.alpha[-1], equal_nan=True)


@pytest.mark.parametrize("join", ["replace", "added", "residual"])
def test_a_whole_search_moves_no_tensor_of_the_backbone(make_room, join):
    network = backbone()
    network(torch.randn(4, 1, 32, 32))
    before = copy.deepcopy(network.state_dict())
    settings = replace(SEARCH, join=join)
    search(network, eager_pruner(), make_room(), cell=CELL, settings=settings, seed=0)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_alpha_rests_during_the_warm_up_and_moves_afterwards(make_room):
    record = run_search(make_room())
    assert np.array_equal(record.alpha[0], record.alpha[0])
    assert np.isnan(record.curve[0]["architecture_loss"])
    moved = np.nanmax(np.abs(record.alpha[1] - record.alpha[0]))
    assert 0 < moved <= 1.05 * 2 * SEARCH.resolved_alpha_learning_rate(2)


def test_pruned_operations_are_gone_from_the_trajectory(make_room):
    record = run_search(make_room())
    removed = sum(len(event["operations"]) for event in record.events)
    counts = record.active.sum(axis=(1, 2, 3))
    assert counts[0] == 40
    assert (np.diff(counts) <= 0).all()
    assert removed >= counts[0] - counts[-1] > 0
    assert np.isnan(record.alpha[~record.active]).all()
    assert (record.importance[~record.active] == 0).all()


def test_halves_are_disjoint_and_follow_the_seed():
    patients = tuple(f"p{number}" for number in range(9))
    weights, alphas = halves(patients, 0)
    assert sorted(weights + alphas) == sorted(patients)
    assert (len(weights), len(alphas)) == (5, 4)
    assert halves(patients, 0) == (weights, alphas)
    assert halves(patients, 1) != (weights, alphas)


def test_a_lower_precision_trains_and_keeps_weights_in_float32(make_room):
    settings = replace(PRETRAIN, precision="bfloat16")
    network = backbone()
    result = pretrain(network, make_room("low"), settings, seed=0)
    exact = pretrain(backbone(), make_room("exact"), PRETRAIN, seed=0)
    assert result.curve[-1]["train_loss"] == pytest.approx(exact.curve[-1]["train_loss"], rel=0.05)
    assert result.curve[-1]["train_loss"] != exact.curve[-1]["train_loss"]
    assert {weight.dtype for weight in network.parameters()} == {torch.float32}
    record = run_search(make_room(), settings=replace(SEARCH, precision="bfloat16"))
    assert np.isfinite([entry["train_loss"] for entry in record.curve]).all()


class Reviver(JsAbsolute):
    """Breaks the contract: gives back what it took."""

    def decide(self, state):
        keep = np.ones_like(state.active)
        if state.epoch == 1:
            keep[0, 4, 1:] = False
        return Decision(keep=keep)


class Emptier(JsAbsolute):
    def decide(self, state):
        keep = state.active.copy()
        keep[0, 0] = False
        return Decision(keep=keep)


class Starver(JsAbsolute):
    def decide(self, state):
        keep = state.active.copy()
        keep[0, 0, 1:] = False
        return Decision(keep=keep)


@pytest.mark.parametrize(
    ("pruner", "rule"), [(Reviver, "revive"), (Emptier, "leave every edge"), (Starver, "node 2")]
)
def test_a_pruner_that_breaks_its_contract_is_named(make_room, pruner, rule):
    with pytest.raises(SearchError, match=rule):
        run_search(make_room(), pruner=pruner(JsAbsoluteSettings()))


def test_a_loss_that_is_not_finite_ends_the_training_with_its_epoch(make_room):
    network = backbone()
    settings = RetrainSettings(epochs=3, batch_size=4, steps_per_epoch=2)
    # Far outside of the range that a sweep file may give: it diverges in a step.
    object.__setattr__(settings, "backbone_learning_rate", 1e30)
    with pytest.raises(NotFiniteError, match="must be finite, got nan in epoch"):
        train_longer(network, make_room(), settings, seed=0)
