"""The starting state of a retraining is scored, and kept where no epoch is better."""

import pytest
import torch

from iac_core.backbones import build_backbone
from iac_core.backbones.unet import UNetSettings
from iac_core.cells.genotype import uniform_genotype
from iac_core.cells.implant import ImplantedNetwork
from iac_core.cells.matched_start import match_start
from iac_core.config import CellSettings, PretrainSettings, RetrainSettings
from iac_core.seeding import numpy_generator
from iac_core.training.batches import load_batch
from iac_core.training.fit import evaluation_mode, trained_state
from iac_core.training.pretrain import pretrain, train_longer
from iac_core.training.retrain import frozen_prefixes, retrain
from iac_core.training.validation import validation_dice

RUINOUS = RetrainSettings(
    epochs=2, batch_size=4, steps_per_epoch=3, learning_rate=30.0, backbone_learning_rate=30.0
)


@pytest.fixture
def backbone(make_room):
    """A backbone that segments something: without that no training could ruin it."""
    network = build_backbone(UNetSettings(widths=(8, 16)), n_channels=1, n_classes=4, seed=0)
    settings = PretrainSettings(epochs=4, batch_size=4, steps_per_epoch=10, learning_rate=5e-3)
    result = pretrain(network, make_room("pretrain"), settings, seed=0)
    assert result.start_dice is None
    network.load_state_dict(result.state)
    return network, result.best_dice


def implanted(backbone, **cell):
    settings = CellSettings(n_nodes=2, **cell)
    genotype = uniform_genotype(settings, 1, "sep_conv_3x3")
    return ImplantedNetwork(backbone, genotype, settings, scope="cell", seed=0)


def dice_of(network, room):
    return validation_dice(
        evaluation_mode(network),
        room.data,
        room.split.validation,
        batch_size=4,
        device=room.device,
    )


def test_a_ruinous_retraining_returns_its_starting_state(make_room, backbone):
    trained, dice = backbone
    assert dice > 0.1, "the backbone must find something"
    network = implanted(trained, form="residual", start="plain")
    before = trained_state(network, frozen_prefixes("cell"))
    result = retrain(network, make_room("ruined"), RUINOUS, seed=0)
    assert result.best_epoch == -1
    assert result.best_dice == result.start_dice == pytest.approx(dice)
    assert set(result.state) == set(before)
    assert all(torch.equal(result.state[name], value) for name, value in before.items())
    assert any(
        not torch.equal(value, before[name])
        for name, value in trained_state(network, frozen_prefixes("cell")).items()
    ), "nothing was trained"


def test_a_retraining_that_helps_keeps_a_later_epoch(make_room, backbone):
    network = implanted(backbone[0], form="replace")
    settings = RetrainSettings(epochs=6, batch_size=4, steps_per_epoch=10, learning_rate=1e-2)
    result = retrain(network, make_room("helped"), settings, seed=0)
    assert result.best_epoch >= 0
    assert result.best_dice > result.start_dice


def test_training_a_backbone_for_longer_may_return_the_backbone(make_room, backbone):
    trained, dice = backbone
    result = train_longer(trained, make_room("longer"), RUINOUS, seed=0)
    assert (result.best_epoch, result.best_dice) == (-1, pytest.approx(dice))


def test_the_start_of_a_matched_cell_is_scored_after_it_was_matched(make_room, backbone):
    room = make_room("matched")
    network = implanted(backbone[0], form="replace", start="matched")
    result = retrain(network, room, RUINOUS, seed=0)
    again = implanted(backbone[0], form="replace", start="matched")
    unmatched = dice_of(again, room)
    slices = room.data.slice_indices(room.split.train, for_training=True)
    order = numpy_generator(0, "retrain", "matched start").permutation(slices)
    images, _ = load_batch(room.data, order[: RUINOUS.batch_size], room.device)
    match_start(again, images)
    assert dice_of(again, room) == pytest.approx(result.start_dice)
    assert result.start_dice != unmatched
