import errno
import os

import numpy as np
import pytest
import torch

from iac_core.backbones import build_backbone
from iac_core.backbones.external import ExternalSettings, SkipArgument
from iac_core.backbones.unet import UNetSettings
from iac_core.config import AugmentationSettings, CellSettings, SearchSettings
from iac_core.errors import DataError
from iac_core.pruners import build_pruner
from iac_core.pruners.no_pruning import NoPruningSettings
from iac_core.training.batches import load_batch
from iac_core.training.kept_features import KeptFeatures, feature_bytes
from iac_core.training.search import Search, search


def backbone():
    return build_backbone(UNetSettings(widths=(8, 16)), n_channels=1, n_classes=4, seed=0).eval()


def keep(data, indices, network):
    return KeptFeatures(network.encode, data, indices, batch_size=4, device=torch.device("cpu"))


def test_kept_features_are_the_encoders(make_room):
    data, network = make_room().data, backbone()
    indices = np.arange(3, 17)
    kept = keep(data, indices, network)
    chosen = np.array([16, 3, 8])
    images, _ = load_batch(data, chosen, torch.device("cpu"))
    with torch.no_grad():
        expected = network.encode(images)
    found = kept.load(chosen)
    assert len(found) == len(expected)
    for value, reference in zip(found, expected, strict=True):
        assert torch.allclose(value, reference, atol=1e-6)
        assert value.is_contiguous(memory_format=torch.channels_last)
    assert kept.n_bytes == len(indices) * feature_bytes(backbone(), data.slice_shape[0])


def test_a_slice_that_was_not_kept_is_a_mistake(make_room):
    kept = keep(make_room().data, np.arange(4), backbone())
    with pytest.raises(AssertionError, match="not kept"):
        kept.load(np.array([5]))


def test_no_room_for_features_is_said_with_the_way_out(make_room, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(
        DataError, match=r"set TMPDIR to a larger folder, or search\.keep_features"
    ):
        keep(make_room().data, np.arange(4), backbone())


def settings(keep_features):
    return SearchSettings(
        epochs=3,
        batch_size=4,
        steps_per_epoch=3,
        alpha_warmup_epochs=1,
        keep_features=keep_features,
    )


def run(room, keep_features):
    return search(
        backbone(),
        build_pruner(NoPruningSettings()),
        room,
        cell=CellSettings(n_nodes=2, form="replace"),
        settings=settings(keep_features),
        seed=0,
    )


def test_a_search_with_kept_features_is_the_search_without(make_room):
    kept, encoded = (run(make_room(str(keep)), keep) for keep in (True, False))
    assert np.allclose(kept.alpha, encoded.alpha, atol=1e-4)
    assert kept.genotype == encoded.genotype


def test_an_augmented_search_takes_the_features_of_each_view(make_room):
    views = AugmentationSettings(enabled=True)
    kept, encoded = (run(make_room(str(keep), augmentation=views), keep) for keep in (True, False))
    assert np.array_equal(kept.alpha, encoded.alpha)
    plain = run(make_room("plain"), keep_features=False)
    assert not np.allclose(kept.alpha, plain.alpha, atol=1e-4)


def test_frozen_weights_get_no_gradient_and_do_not_move(make_room):
    network = backbone()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    run_of = Search(
        network,
        build_pruner(NoPruningSettings()),
        make_room(),
        CellSettings(n_nodes=2, form="replace"),
        settings(keep_features=True),
        0,
    )
    run_of.run_epoch()
    run_of.run_epoch()
    for weight in network.parameters():
        assert not weight.requires_grad
        assert weight.grad is None
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_nothing_is_kept_of_a_network_without_an_encoder(make_room):
    settings_ = ExternalSettings(
        target="monai.networks.nets:BasicUNet",
        arguments={"spatial_dims": 2, "features": [8, 8, 16, 16, 32, 8]},
        classes_argument="out_channels",
        skips=(SkipArgument(module="upcat_1"),),
        multiple=16,
    )
    network = build_backbone(settings_, n_channels=1, n_classes=4, seed=0)
    pruner = build_pruner(NoPruningSettings())
    run_of = Search(
        network, pruner, make_room(), CellSettings(n_nodes=2), settings(keep_features=True), 0
    )
    run_of.run_epoch()
    assert run_of.features is None
