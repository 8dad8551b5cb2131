"""What every backbone must do; a new entry of the table is tested by being there."""

import pickle

import pytest
import torch

from iac_core.backbones import BACKBONES, build_backbone


@pytest.fixture(params=sorted(BACKBONES))
def backbone(request):
    settings = BACKBONES[request.param].Settings()
    return build_backbone(settings, n_channels=1, n_classes=3, seed=0).eval()


@pytest.mark.parametrize("size", [(64, 64), (50, 63)])
def test_logits_have_the_size_of_the_image(backbone, size):
    with torch.no_grad():
        assert backbone(torch.zeros(1, 1, *size)).shape == (1, 3, *size)


def test_sites_say_what_the_decoder_takes(backbone):
    seen = {}

    def record(level, skip, upsampled):
        seen[level] = (skip.shape[1], upsampled.shape[1], 64 // skip.shape[-1])
        assert skip.shape[2:] == upsampled.shape[2:]
        return skip

    with torch.no_grad():
        backbone.decode(backbone.encode(torch.zeros(1, 1, 64, 64)), record)
    assert [seen[level] for level in range(len(backbone.sites))] == [
        (site.skip_channels, site.decoder_channels, site.stride) for site in backbone.sites
    ]
    assert len(backbone.sites) == type(backbone).Settings().n_skips


def test_the_seed_fixes_the_weights_and_the_global_generator_is_left_alone(backbone):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    again = build_backbone(type(backbone).Settings(), n_channels=1, n_classes=3, seed=0)
    assert torch.equal(torch.rand(1), expected)
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


def test_a_backbone_survives_a_change_of_process(backbone):
    images = torch.randn(1, 1, 32, 32)
    copy = pickle.loads(pickle.dumps(backbone))
    with torch.no_grad():
        assert torch.equal(copy(images), backbone(images))
