"""Genotypes of mixed-block networks: what is valid, and their two texts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iac_core.backbones.mixed_block.decoding import decoded
from iac_core.backbones.mixed_block.genotype import (
    MixedGenotype,
    MixedNode,
    sources,
    u_net_genotype,
)
from iac_core.backbones.mixed_block.network import MixedBlockSettings
from iac_core.errors import ConfigError
from iac_core.searches.mixed_block import MixedBlockSpace
from iac_core.searches.mixed_block_settings import MixedBlockSpaceSettings

AUTHORS = (
    "0320100012202000320031203001232111210121",
    "0210132021102000100112102020100111220311",
    "0000100022203000320031213002232111210000",
)


def genotype_of(n_nodes, seed):
    """A random one; drawn in the test, since beartype's checks use `random`."""
    given = MixedBlockSpaceSettings(n_nodes=n_nodes, n_levels=10, n_skip_sources=9)
    return MixedBlockSpace(given).sample(np.random.default_rng(seed))


N_NODES, SEEDS = st.integers(2, 14), st.integers(0, 2**32)


@given(N_NODES, SEEDS)
def test_both_texts_give_the_genotype_back(n_nodes, seed):
    genotype = genotype_of(n_nodes, seed)
    assert MixedGenotype.from_text(str(genotype)) == genotype
    assert MixedGenotype.from_digits(genotype.digits) == genotype


@pytest.mark.parametrize("digits", AUTHORS)
def test_the_digits_of_the_authors_are_read_and_written(digits):
    assert MixedGenotype.from_digits(digits).digits == digits


def test_a_request_for_a_source_that_does_not_exist_is_no_skip_in_the_authors_digits():
    genotype = MixedGenotype.from_digits("0000" + "1001" + "1000" + "0002")
    assert str(genotype) == "vgg3@0 vgg3@1 vgg3@1 vgg3@0"


def test_a_node_is_no_source_of_its_successor():
    assert sources((0, 0, 0, 0), 3) == [1, 0]
    assert sources((0, 0, 0, 0), 1) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"nodes such as vgg3@0 .* at node 1 of it, got ''"),
        ("vgg3@0  vgg3@0", r"between single blanks, at node 2 of it, got ''"),
        ("vgg3@0 vgg3", "at node 2 of it, got 'vgg3'"),
        ("vgg3@0 VGG3@0", "at node 2 of it, got 'VGG3@0'"),
        ("vgg3@0 vgg٣@0", "at node 2 of it"),
        ("vgg3@0 vgg3@0+0", r"at node 2 of it, got 'vgg3@0\+0'"),
        ("vgg3@0 vgg3@0+", "at node 2 of it"),
        ("vgg3@0 vgg3@" + "9" * 5000, "at node 2 of it"),
        ("vgg3@0", "2 to 64 nodes, got 1"),
        ("vgg3@0 " * 64 + "vgg3@0", "2 to 64 nodes, got 65"),
        ("vgg3@1 vgg3@0", "begin at level 0, got 1"),
        ("vgg3@0 vgg3@1 vgg3@2", "end at level 0 or 1, got 2"),
        ("vgg3@0 vgg3@2 vgg3@1", "differ by at most 1, at node 2 of it, got '2 after 0'"),
        ("vgg3@0 dens3@0", "blocks of vgg, residual, dense, inception, at node 2 of it"),
        ("vgg3@0 dense4@0", "kernels of 3, 5 and 7, at node 2 of it, got 4"),
        ("vgg3@0 vgg3@0+1", r"at node 2 of it, which has 0 .*, got '\+1'"),
        ("vgg3@0 vgg3@1 vgg3@0+2", r"at node 3 of it, which has 1 .*, got '\+2'"),
    ],
)
def test_a_genotype_that_is_not_valid_says_where_and_why(text, said):
    with pytest.raises(ConfigError, match="^genotype must .*" + said):
        MixedBlockSettings(genotype=text)


@pytest.mark.parametrize("digits", ["", "000", "0000x000", "00000400", "00000030", "٠000٠000"])
def test_digits_that_are_no_genotype_are_refused(digits):
    with pytest.raises(ConfigError, match="genotype must"):
        MixedGenotype.from_digits(digits)


def test_levels_beyond_nine_are_refused():
    levels = [*range(11), *range(9, -1, -1)]
    nodes = tuple(MixedNode(level, "vgg", 3) for level in levels)
    with pytest.raises(ConfigError, match="levels from 0 to 9"):
        MixedGenotype(nodes)


@pytest.mark.parametrize(
    ("shape", "levels", "skips"),
    [
        ((10, 5), (0, 1, 2, 3, 4, 4, 3, 2, 1, 0), (0, 0, 0, 0, 0, 0, 1, 1, 1, 1)),
        ((10, 4), (0, 1, 2, 3, 3, 3, 3, 2, 1, 0), (0, 0, 0, 0, 0, 0, 0, 1, 1, 1)),
        ((6, 3), (0, 1, 2, 2, 1, 0), (0, 0, 0, 0, 1, 1)),
        ((5, 5), (0, 1, 2, 1, 0), (0, 0, 0, 1, 1)),
        ((2, 1), (0, 0), (0, 0)),
    ],
)
def test_the_u_net_of_so_many_nodes_and_levels(shape, levels, skips):
    genotype = u_net_genotype(*shape)
    assert genotype.levels == levels
    assert tuple(node.skip for node in genotype.nodes) == skips


@given(N_NODES, SEEDS, st.integers(1, 40), st.integers(0, 6))
def test_widths_and_levels_of_the_blocks_fit_each_other(n_nodes, seed, width, doublings):
    genotype = genotype_of(n_nodes, seed)
    most = 2 * width * 2**doublings
    plans = decoded(genotype, width=width, max_width=most)
    assert len(plans) == len(genotype.nodes)
    # Channels and level of each node's own feature, and of what arrives at the next block.
    own, level = [(width, 0)], 0
    arriving = width
    for index, plan in enumerate(plans):
        node = genotype.nodes[index]
        assert (plan.block, plan.kernel) == (node.block, node.kernel)
        assert (plan.level > level) == (plan.stride == 2)
        assert (plan.level < level) == (plan.upsampled_channels is not None)
        if plan.upsampled_channels is None:
            assert plan.in_channels == arriving
        else:
            assert plan.upsampled_channels == arriving == 2 * plan.in_channels
        assert plan.out_channels == min(width * 2**plan.level, most)
        own.append((plan.out_channels, plan.level))
        arriving, level = plan.out_channels, plan.level
        if plan.source is not None:
            assert plan.source < index
            assert own[plan.source] == own[-1]
            arriving *= 2
    assert own[-1] == (width, 0)
