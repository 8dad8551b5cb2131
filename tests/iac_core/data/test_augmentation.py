from dataclasses import replace

import numpy as np
import pytest
import torch

from iac_core.config import AugmentationSettings
from iac_core.data.augmentation import augment
from iac_core.errors import ConfigError

STILL = AugmentationSettings(
    enabled=True, flips=False, rotation_degrees=0, scale=0, shift=0, intensity=0, noise_sd=0
)


def batch(n=6, size=24):
    """Slices whose intensity follows their label, off the centre."""
    labels = torch.zeros(n, size, size, dtype=torch.int64)
    labels[:, 6:14, 8:12] = 1
    labels[:, 9:12, 9:11] = 2
    images = torch.randn(n, 2, size, size, generator=torch.Generator().manual_seed(0)) * 0.01
    return images + labels[:, None], labels


def view(settings, axes=("rows", "columns"), seed=0):
    return augment(*batch(), settings, axes, np.random.default_rng(seed))


def test_without_any_range_a_view_is_the_slice():
    images, labels = batch()
    moved, moved_labels = view(STILL)
    assert torch.allclose(moved, images, atol=1e-5)
    assert torch.equal(moved_labels, labels)


@pytest.mark.parametrize(("axes", "dims"), [(("rows",), (1,)), (("columns",), (2,))])
def test_a_flip_mirrors_image_and_labels_along_the_axes_that_the_data_allow(axes, dims):
    images, labels = batch()
    moved, moved_labels = view(replace(STILL, flips=True), axes)
    flipped = [
        not torch.equal(one, other) for one, other in zip(moved_labels, labels, strict=True)
    ]
    assert 0 < sum(flipped) < len(flipped)
    mirrored, mirrored_labels = images.flip([dim + 1 for dim in dims]), labels.flip(dims)
    for index, is_flipped in enumerate(flipped):
        expected = (mirrored, mirrored_labels) if is_flipped else (images, labels)
        assert torch.allclose(moved[index], expected[0][index], atol=1e-5)
        assert torch.equal(moved_labels[index], expected[1][index])


def test_no_axis_allowed_is_no_flip():
    assert torch.equal(view(replace(STILL, flips=True), axes=())[1], batch()[1])


def test_labels_move_with_their_image_and_stay_labels():
    settings = replace(STILL, rotation_degrees=15, scale=0.1, shift=0.1)
    moved, labels = view(settings)
    assert not torch.equal(labels, batch()[1])
    assert set(labels.unique().tolist()) == {0, 1, 2}
    away = (moved[:, 0] - labels).abs()
    assert float(away.median()) < 0.05
    assert float((away > 0.6).float().mean()) < 0.02
    for label in (1, 2):
        before = (batch()[1] == label).sum(dim=(1, 2))
        after = (labels == label).sum(dim=(1, 2))
        assert (0.6 * before < after).all()
        assert (after < 1.5 * before).all()


def test_what_lies_beyond_the_slice_is_background():
    images, labels = batch()
    labels, images = torch.ones_like(labels), images + 5
    settings = replace(STILL, shift=0.9)
    moved, moved_labels = augment(images, labels, settings, (), np.random.default_rng(0))
    beyond = moved_labels == 0
    assert beyond.any()
    for image, least, outside in zip(moved, images.amin(dim=(2, 3)), beyond, strict=True):
        inner = torch.nn.functional.max_pool2d((~outside).float()[None], 3, 1, 1)[0] == 0
        assert torch.allclose(image[:, inner], least[:, None].expand(-1, int(inner.sum())))


def test_intensities_change_within_their_range_and_labels_do_not():
    moved, labels = view(replace(STILL, intensity=0.1, noise_sd=0.05))
    images, expected = batch()
    assert torch.equal(labels, expected)
    change = (moved - images).abs().amax(dim=(1, 2, 3)) / images.std(dim=(1, 2, 3))
    assert (change > 0).all()
    assert (change < 1.5).all()


def test_a_view_follows_its_generator_alone():
    settings = AugmentationSettings(enabled=True)
    one, again, other = view(settings), view(settings), view(settings, seed=1)
    assert torch.equal(one[0], again[0])
    assert torch.equal(one[1], again[1])
    assert not torch.equal(one[0], other[0])


@pytest.mark.parametrize(
    "wrong", [{"rotation_degrees": -1.0}, {"scale": 1.0}, {"shift": -0.1}, {"noise_sd": -1.0}]
)
def test_ranges_are_checked(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        AugmentationSettings(**wrong)
