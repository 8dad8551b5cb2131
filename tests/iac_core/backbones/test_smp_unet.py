"""The U-Nets that MB-NAS compares with have the published sizes."""

import pytest

from iac_core.backbones import BACKBONES, build_backbone
from iac_core.errors import ConfigError
from iac_core.evaluation.cost import count_macs, count_parameters


@pytest.mark.parametrize(
    ("name", "parameters", "published_m", "macs_m", "published_macs_m"),
    [
        ("smp_vgg13_unet", 18_444_147, 18.44, 301.3, 302),
        ("smp_resnet50_unet", 32_518_259, 32.5, 165.6, 166),
    ],
)
def test_baselines_have_the_published_parameters_and_multiply_accumulates(
    name, parameters, published_m, macs_m, published_macs_m
):
    """Two channels, three classes; multiply–accumulates of a slice of 32 × 32, norms left out."""
    network = build_backbone(BACKBONES[name].Settings(), n_channels=2, n_classes=3, seed=0)
    found = count_parameters(network).total
    assert found == parameters
    assert found / 1e6 == pytest.approx(published_m, abs=0.02)
    macs = count_macs(network, (1, 2, 32, 32)) / 1e6
    assert macs == pytest.approx(macs_m, abs=0.05)
    assert macs == pytest.approx(published_macs_m, rel=0.01)


@pytest.mark.parametrize("name", ["smp_vgg13_unet", "smp_resnet50_unet"])
def test_the_width_scales_every_feature(name):
    settings = BACKBONES[name].Settings
    wide, narrow = (
        build_backbone(settings(width=width), n_channels=1, n_classes=2, seed=0)
        for width in (16, 8)
    )
    for one, half in zip(wide.sites, narrow.sites, strict=True):
        assert (one.stride, one.skip_channels) == (half.stride, 2 * half.skip_channels)


@pytest.mark.parametrize(
    ("width", "rule"),
    [(0, "at least 4"), (6, "a multiple of 4"), (-4, "at least 4")],
)
def test_a_width_is_a_multiple_of_four(width, rule):
    with pytest.raises(ConfigError, match=f"width must be {rule}"):
        BACKBONES["smp_resnet50_unet"].Settings(width=width)
