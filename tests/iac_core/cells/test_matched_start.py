import numpy as np
import pytest
import torch

from iac_core.backbones import build_backbone
from iac_core.backbones.unet import UNetSettings
from iac_core.cells.genotype import random_genotype, uniform_genotype
from iac_core.cells.implant import FIRST_GATE, ImplantedNetwork
from iac_core.cells.layout import node_channels
from iac_core.cells.matched_start import match_start
from iac_core.config import CellSettings
from iac_core.errors import ConfigError


def network(genotype=None, **cell):
    settings = CellSettings(**{"form": "replace", **cell})
    backbone = build_backbone(UNetSettings(widths=(8, 16, 32)), n_channels=1, n_classes=3, seed=0)
    torch.manual_seed(0)
    for module in backbone.modules():  # a trained backbone has running statistics of its own
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    genotype = genotype or random_genotype(settings, 2, np.random.default_rng(1))
    return ImplantedNetwork(backbone, genotype, settings, scope="cell", seed=3)


def images(n=6):
    return torch.randn(n, 1, 20, 24, generator=torch.Generator().manual_seed(1))


def seen_by_the_decoder(net):
    """Skips and what stands in their place, in evaluation mode, by level."""
    skips, joined = {}, {}
    join = net.implant.adapter(net.apply_cell)

    def spy(level, skip, second):
        skips[level], joined[level] = skip, join(level, skip, second)
        return joined[level]

    net.eval()
    with torch.no_grad():
        net.implant.backbone.decode(net.implant.encode(images()), spy)
    return skips, joined


@pytest.mark.parametrize("node_width", [None, 0.5, 1.0])
def test_a_matched_cell_starts_with_the_statistics_of_its_skip(node_width):
    net = network(start="matched", node_width=node_width)
    match_start(net, images())
    skips, joined = seen_by_the_decoder(net)
    for level, skip in skips.items():
        moves = skip.std(dim=(0, 2, 3)) > 0.1 * skip.std(dim=(0, 2, 3)).mean()
        for statistic in (torch.mean, torch.std):
            wanted, found = (statistic(x, dim=(0, 2, 3))[moves] for x in (skip, joined[level]))
            assert torch.allclose(found, wanted, rtol=0.03, atol=0.02), (level, statistic)


def test_a_plain_start_is_far_from_the_skip():
    skips, joined = seen_by_the_decoder(network())
    assert (joined[0].mean() - skips[0].mean()).abs() > 0.1


def test_matching_moves_no_tensor_of_the_backbone():
    net = network(start="matched")
    before = {name: value.clone() for name, value in net.implant.backbone.state_dict().items()}
    match_start(net, images())
    for name, value in net.implant.backbone.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_scale_and_shift_are_trained_with_the_cell():
    net = network(start="matched")
    match_start(net, images())
    net.train()
    net(images()).square().mean().backward()
    for part in (*net.implant.scales, *net.implant.shifts):
        assert part.grad is not None
        assert torch.isfinite(part.grad).all()
        assert part.grad.abs().sum() > 0
    named = {id(weight) for weight in net.implant.cell_parameters()}
    assert all(id(part) in named for part in net.implant.scales)


def test_an_added_cell_reaches_the_decoder_from_the_first_step_and_a_residual_one_does_not():
    for form, start in FIRST_GATE.items():
        skips, joined = seen_by_the_decoder(network(form=form))
        differs = float((joined[0] - skips[0]).abs().max())
        assert (differs > 0) == (start > 0), form


@pytest.mark.parametrize(("share", "channels"), [(None, 4), (0.25, 4), (0.5, 8), (1.0, 16)])
def test_the_width_of_a_node_is_its_share_of_the_skip(share, channels):
    assert node_channels(16, CellSettings(node_width=share)) == channels
    net = network(node_width=share)
    with torch.no_grad():
        assert net(images()).shape == (6, 3, 20, 24)


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5])
def test_a_width_out_of_range_is_refused(share):
    with pytest.raises(ConfigError, match="node_width must be above 0, at most 1"):
        CellSettings(node_width=share)


def test_a_uniform_cell_has_one_operation_on_both_inputs_of_every_node():
    genotype = uniform_genotype(CellSettings(n_nodes=2), 3, "avg_pool_3x3")
    assert [(edge.target, edge.source) for edge in genotype.level(2)] == [
        (2, 0), (2, 1), (3, 0), (3, 1),
    ]  # fmt: skip
    assert {edge.operation for edge in genotype.level(0)} == {"avg_pool_3x3"}
    with torch.no_grad():
        assert torch.isfinite(
            network(uniform_genotype(CellSettings(), 2, "skip_connect"))(images())
        ).all()
