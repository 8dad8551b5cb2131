"""Batches that are cut for want of memory: the same gradients where slices are independent."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.networks.nets import BasicUNet
from torch.nn.functional import cross_entropy

from iac_core.backbones import build_backbone
from iac_core.backbones.unet import UNetSettings
from iac_core.config import AugmentationSettings, CellSettings, PretrainSettings, SearchSettings
from iac_core.pruners import build_pruner
from iac_core.pruners.no_pruning import NoPruningSettings
from iac_core.training.batches import micro_batches
from iac_core.training.fit import ParameterGroup, fit
from iac_core.training.search import Search
from iac_core.types import Scoring

ONE_STEP = PretrainSettings(epochs=1, batch_size=6, steps_per_epoch=1)


@pytest.mark.parametrize(("n_slices", "n_parts"), [(6, 1), (6, 2), (7, 3), (2, 8), (1, 1)])
def test_parts_are_disjoint_whole_and_of_like_size(n_slices, n_parts):
    parts = micro_batches(n_slices, n_parts)
    assert np.concatenate([np.arange(n_slices)[part] for part in parts]).tolist() == list(
        range(n_slices)
    )
    sizes = {part.stop - part.start for part in parts}
    assert max(sizes) - min(sizes) <= 1
    assert len(parts) == min(n_slices, n_parts)


class Sizes:
    """Remembers the batch sizes of a network's training passes."""

    def __init__(self, network):
        self.seen = []
        network.register_forward_pre_hook(self)

    def __call__(self, module, args):
        if torch.is_grad_enabled():
            self.seen.append(len(args[0]))


def gradients_of_a_fit(room, norm):
    torch.manual_seed(0)
    network = BasicUNet(
        spatial_dims=2, features=[4, 4, 4, 4, 4, 4], in_channels=1, out_channels=4, norm=norm
    )
    sizes = Sizes(network)
    group = ParameterGroup(parameters=list(network.parameters()), learning_rate=1e-3)
    result = fit(network, [group], room, ONE_STEP, seed=0, purpose="pretrain")
    gradients = {name: weight.grad for name, weight in network.named_parameters()}
    return gradients, result.curve[0]["train_loss"], sizes.seen


def close(one, other):
    scale = max(float(value.abs().max()) for value in other.values())
    return all(torch.allclose(one[name], other[name], atol=1e-5 * scale) for name in other)


@pytest.mark.parametrize("augmented", [False, True])
def test_a_training_step_in_parts_has_the_gradient_of_the_whole(make_room, monkeypatch, augmented):
    # Cross-entropy is a mean over slices; soft Dice is not.
    monkeypatch.setattr("iac_core.training.fit.segmentation_loss", cross_entropy)
    views = AugmentationSettings(enabled=augmented)
    whole, loss, sizes = gradients_of_a_fit(make_room("whole", augmentation=views), "instance")
    room = make_room("cut", augmentation=views, n_micro_batches=4)
    cut, cut_loss, cut_sizes = gradients_of_a_fit(room, "instance")
    assert (sizes, cut_sizes) == ([6], [2, 2, 1, 1])
    assert close(cut, whole)
    assert cut_loss == pytest.approx(loss, rel=1e-5)


def test_batch_norm_and_soft_dice_make_a_step_in_parts_another_step(make_room, monkeypatch):
    whole, _, _ = gradients_of_a_fit(make_room("whole"), "instance")
    cut, _, _ = gradients_of_a_fit(make_room("cut", n_micro_batches=3), "instance")
    assert not close(cut, whole), "soft Dice sums over the part"
    monkeypatch.setattr("iac_core.training.fit.segmentation_loss", cross_entropy)
    whole, _, _ = gradients_of_a_fit(make_room("whole2"), "batch")
    cut, _, _ = gradients_of_a_fit(make_room("cut2", n_micro_batches=3), "batch")
    assert not close(cut, whole), "batch norm sees the part"


def make_search(room, norm, **changes):
    backbone = build_backbone(UNetSettings(widths=(8, 16)), n_channels=1, n_classes=4, seed=0)
    backbone.cell_norm = norm
    settings = SearchSettings(epochs=2, batch_size=6, steps_per_epoch=2, alpha_warmup_epochs=0)
    return Search(
        backbone.eval(), build_pruner(NoPruningSettings()), room, CellSettings(n_nodes=2),
        replace(settings, **changes), 0,
    )  # fmt: skip


@pytest.mark.parametrize("keep_features", [True, False])
def test_both_steps_of_a_search_in_parts_have_the_gradients_of_the_whole(
    make_room, monkeypatch, keep_features
):
    monkeypatch.setattr("iac_core.training.search.segmentation_loss", cross_entropy)
    found = []
    for n in (1, 4):
        run = make_search(
            make_room(f"n{n}", n_micro_batches=n), "instance", keep_features=keep_features
        )
        run.keep_features()
        run.architecture_step(run.alpha_slices[:6])
        alpha = {name: p.grad.clone() for name, p in run.architecture.named_parameters()}
        # The weight step is taken from the same alpha.
        with torch.no_grad():
            for parameter in run.architecture.parameters():
                parameter.zero_()
        run.weight_step(run.weight_slices[:6], 0.0)
        weights = {str(i): w.grad for i, w in enumerate(run.weights) if w.grad is not None}
        found.append((alpha, weights, run.losses.clone()))
    whole, cut = found
    assert close(cut[0], whole[0])
    assert close(cut[1], whole[1])
    assert len(cut[1]) == len(whole[1]) > 0
    assert torch.allclose(cut[2], whole[2], rtol=1e-5)


def test_a_search_in_parts_makes_as_many_steps_and_scores_masks_alike(make_room):
    whole = make_search(make_room("whole"), "batch")
    cut = make_search(make_room("cut", n_micro_batches=3), "batch")
    rng = np.random.default_rng(0)
    masks = rng.random((5, *whole.architecture.active.shape)) < 0.5
    for run in (whole, cut):
        run.keep_features()
    scoring = Scoring(n_slices=6, measure="negative_loss")
    values = [
        run.scorer.values(run.architecture.importance().detach(), masks, scoring)
        for run in (whole, cut)
    ]
    assert np.allclose(values[0], values[1], rtol=1e-5)
    for run in (whole, cut):
        run.run_epoch()
    names = ("n_weight_steps", "n_architecture_steps")
    assert all(whole.progress.curve[0][name] == cut.progress.curve[0][name] for name in names)
    assert whole.progress.n_slices_trained == cut.progress.n_slices_trained
