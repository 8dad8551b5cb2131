"""Networks of mixed blocks: the published numbers of parameters, and random genotypes."""

import numpy as np
import pytest
import torch

from iac_core.backbones import build_backbone
from iac_core.backbones.mixed_block.blocks import BLOCKS
from iac_core.backbones.mixed_block.decoding import decoded
from iac_core.backbones.mixed_block.genotype import MixedGenotype, u_net_genotype
from iac_core.backbones.mixed_block.network import MixedBlockNetwork, MixedBlockSettings
from iac_core.errors import ConfigError
from iac_core.evaluation.cost import count_parameters
from iac_core.searches.mixed_block import MixedBlockSpace
from iac_core.searches.mixed_block_settings import MixedBlockSpaceSettings
from orchestrator.session import tables
from orchestrator.spec import load_sweep

PUBLISHED = [
    (
        MixedGenotype.from_digits("0320100012202000320031203001232111210121"),
        13_194_402,
        13_194_723,
    ),
    (MixedGenotype.from_digits("0210132021102000100112102020100111220311"), 5_018_978, 5_019_299),
    (
        MixedGenotype.from_digits("0000100022203000320031213002232111210000"),
        22_445_154,
        22_445_475,
    ),
    (u_net_genotype(10, 4), 5_474_466, 5_474_787),
    (u_net_genotype(10, 4, block="residual"), 5_739_810, 5_740_131),
    (u_net_genotype(10, 4, block="dense"), 9_258_274, 9_258_595),
    (u_net_genotype(10, 4, block="inception"), 9_692_322, 9_692_643),
    (u_net_genotype(10, 5), 12_440_738, 12_441_059),
]


def network_of(genotype, n_channels=1, n_classes=2, **widths):
    settings = MixedBlockSettings(genotype=str(genotype), **widths)
    return MixedBlockNetwork(settings, n_channels=n_channels, n_classes=n_classes)


@pytest.mark.parametrize(("genotype", "one", "two"), PUBLISHED, ids=lambda value: str(value)[:40])
def test_parameters_are_those_of_the_authors_code_to_the_last_digit(genotype, one, two):
    """One channel and two classes, two channels and three classes."""
    with torch.device("meta"):
        assert count_parameters(network_of(genotype)).total == one
        assert count_parameters(network_of(genotype, 2, 3)).total == two


def closed_form(block, i, o, k, stride):
    """Parameters of a block of input width i, output width o, kernel k."""
    r = 1 if stride == 1 else 9
    return {
        "vgg": k * k * i * o + 3 * o + k * k * o * o + 3 * o,
        "residual": i * o + k * k * i * o + 2 * o + k * k * o * o + 2 * o,
        "dense": (2 * i + i * o + 2 * o + k * k * o * o)
        + (2 * (i + o) + (i + o) * o + 2 * o + k * k * o * o)
        + (i + 2 * o) * o * r
        + 4 * o,
        "inception": 3 * (i * o + 2 * o)
        + k * k * o * o + 2 * o
        + 2 * o
        + 2 * (k * o * o + 2 * o)
        + 4 * o
        + (4 * o * o * r + 2 * o)
        + 2 * o,
    }[block]  # fmt: skip


@pytest.mark.parametrize("block", sorted(BLOCKS))
@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_block_has_its_parameters_and_halves_with_stride_two(block, kernel, stride):
    module = BLOCKS[block](6, 10, kernel, stride)
    assert count_parameters(module).total == closed_form(block, 6, 10, kernel, stride)
    assert module(torch.randn(2, 6, 12, 8)).shape == (2, 10, 12 // stride, 8 // stride)


def test_parameters_of_random_genotypes_follow_from_the_closed_forms():
    space = MixedBlockSpace(MixedBlockSpaceSettings(n_skip_sources=2))
    generator = np.random.default_rng(0)
    for _ in range(30):
        genotype = space.sample(generator)
        expected = closed_form("vgg", 2, 8, 3, 1) + 8 * 3 + 3
        for plan in decoded(genotype, width=8, max_width=64):
            expected += closed_form(
                plan.block, plan.in_channels, plan.out_channels, plan.kernel, plan.stride
            )
            if plan.upsampled_channels is not None:
                expected += 4 * plan.upsampled_channels * plan.in_channels
        with torch.device("meta"):
            found = count_parameters(network_of(genotype, 2, 3, width=8, max_width=64)).total
        assert found == expected


@pytest.mark.slow
def test_ten_thousand_random_genotypes_decode_and_two_hundred_run_forward_and_backward():
    space = MixedBlockSpace(MixedBlockSpaceSettings(n_skip_sources=2, width=2))
    generator = np.random.default_rng(1)
    torch.manual_seed(0)
    for number in range(10_000):
        genotype = space.sample(generator)
        plans = decoded(genotype, width=2, max_width=512)
        assert (plans[-1].out_channels, plans[-1].level) == (2, 0)
        if number % 50:
            continue
        network = build_backbone(space.to_settings(genotype), n_channels=1, n_classes=3, seed=0)
        logits = network(torch.randn(2, 1, 32, 32))
        assert logits.shape == (2, 3, 32, 32)
        logits.square().mean().backward()
        for weight in network.parameters():
            assert weight.grad is not None
            assert weight.grad.isfinite().all()


def test_skips_take_the_own_feature_of_a_node_not_what_was_joined_to_it():
    # Node 2 joins node 0; node 4 joins node 2, whose own feature has 4 channels, not 8.
    genotype = MixedGenotype.from_text("vgg3@0 vgg3@1 vgg3@0+1 vgg3@1 vgg3@0+1")
    assert [plan.source for plan in decoded(genotype, width=4, max_width=8)] == [
        None, 0, None, 2, None,
    ]  # fmt: skip
    network = network_of(genotype, width=4, max_width=8)
    taken = []
    network.blocks[4].register_forward_hook(lambda _, inputs, __: taken.append(inputs[0]))
    own = []
    network.blocks[1].register_forward_hook(lambda _, __, out: own.append(out))
    network(torch.randn(2, 1, 8, 8))
    assert taken[0].shape[1] == 8
    assert torch.equal(taken[0][:, 4:], own[0])


def test_a_last_node_at_level_one_is_followed_by_an_up_step():
    genotype = MixedGenotype.from_text("vgg3@0 dense3@1 residual3@1")
    last = decoded(genotype, width=4, max_width=8)[-1]
    assert (last.block, last.upsampled_channels, last.in_channels) == ("residual", 8, 4)
    assert network_of(genotype, width=4, max_width=8)(torch.randn(2, 1, 8, 8)).shape == (
        2,
        2,
        8,
        8,
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"width": 0}, "width must be at least 1"),
        ({"max_width": 31}, "max_width must be even and at least width"),
        ({"width": 513}, "max_width must be even and at least width"),
    ],
)
def test_widths_that_no_network_has_are_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        MixedBlockSettings(**changes)


SWEEP = """
metadata:
  sweep:
    name: found
    datasets: {acdc: {layout: acdc, path: /data}}
    grid: {dataset: [acdc], backbone: [found, unet_of_paper], pruner: [no_cell], seed: [0]}
    backbones:
      unet_of_paper: {type: smp_vgg13_unet, width: 8}
      found: {type: mixed_block, width: 8, genotype: GENOTYPE}
"""


def test_a_sweep_file_names_a_genotype(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP.replace("GENOTYPE", "vgg3@0 dense5@1 inception7@0+1"))
    spec = load_sweep(path, tables=tables())
    settings = spec.backbones["found"]
    assert settings == MixedBlockSettings(genotype="vgg3@0 dense5@1 inception7@0+1", width=8)


def test_a_genotype_of_a_sweep_file_that_is_wrong_is_named_with_its_line(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP.replace("GENOTYPE", "vgg3@0 dense5@2 inception7@0"))
    with pytest.raises(Exception, match=r"sweep.yaml:9.*differ by at most 1, at node 2 of it"):
        load_sweep(path, tables=tables())
