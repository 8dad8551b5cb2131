"""The space of mixed-block networks: its size, repair, neighbours and masks."""

from itertools import product
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iac_core.backbones.mixed_block.genotype import MixedGenotype, sources, u_net_genotype
from iac_core.backbones.mixed_block.network import MixedBlockSettings
from iac_core.errors import ConfigError
from iac_core.searches.mixed_block import MixedBlockSpace, level_paths, n_topologies
from iac_core.searches.mixed_block_settings import KINDS, MASKS, MixedBlockSpaceSettings

PAPER = MixedBlockSpace()
SKIPS = MixedBlockSpace(MixedBlockSpaceSettings(n_skip_sources=2))
SMALL = MixedBlockSpace(MixedBlockSpaceSettings(n_nodes=6, n_levels=3))
FREE = [phase for phases in MASKS.values() for phase in phases] + [("skip",), ("block",)]


def encodings(space):
    options = [
        space.n_options(node, kind) for node in range(space.settings.n_nodes) for kind in KINDS
    ]
    return st.tuples(*(st.integers(0, n - 1) for n in options))


def of_kind(encoding, kind):
    return encoding[KINDS.index(kind) :: len(KINDS)]


def test_the_alphabets_are_those_that_give_the_papers_number_of_encodings():
    levels = [PAPER.n_options(node, "level") for node in range(10)]
    skips = [PAPER.n_options(node, "skip") for node in range(10)]
    assert levels == [1, 2, 3, 4, 5, 5, 5, 4, 3, 2]
    assert skips == [1, 1] + 8 * [2]
    assert prod(levels) == 72_000
    assert PAPER.n_encodings == 1_141_260_857_376_768_000


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("mixed_block", [72_000 * 256 * 12**10]),
        ("macro", [72_000 * 256]),
        ("micro", [12**10]),
        ("bilevel", [72_000 * 256, 3**10]),
    ],
)
def test_masks_give_the_sizes_of_the_papers_other_spaces(name, counts):
    assert [MixedBlockSpace(free=phase).n_encodings for phase in MASKS[name]] == counts


def test_the_neighbourhood_has_eighty_two_encodings():
    options = [PAPER.n_options(node, kind) - 1 for node in range(10) for kind in KINDS]
    assert sum(options) == 82
    for kind, n in zip(KINDS, (24, 30, 20, 8), strict=True):
        assert sum(of_kind(options, kind)) == n


def test_numbers_of_paths_and_topologies_are_those_of_the_notes():
    assert len(list(level_paths(10, 5, last=0))) == 835
    counted = {
        (n_levels, n_sources, last): n_topologies(
            10, n_levels, n_skip_sources=n_sources, last=last
        )
        for n_levels, n_sources, last in [
            (5, 1, 0), (5, 2, 0), (5, 8, 0), (5, 1, 1), (6, 1, 1), (10, 1, 1),
        ]
    }  # fmt: skip
    assert counted == {
        (5, 1, 0): 72_560,
        (5, 2, 0): 454_132,
        (5, 8, 0): 2_607_413,
        (5, 1, 1): 170_020,
        (6, 1, 1): 170_036,
        (10, 1, 1): 170_036,
    }


def test_valid_encodings_of_a_small_space_are_counted_by_trying_all():
    options = [SMALL.n_options(node, kind) for node in range(6) for kind in ("level", "skip")]
    n_valid = 0
    for values in product(*map(range, options)):
        encoding = [0] * 24
        encoding[0::4], encoding[3::4] = values[0::2], values[1::2]
        n_valid += SMALL.repair(encoding) == tuple(encoding)
    assert n_valid == n_topologies(6, 3, n_skip_sources=1)


@pytest.mark.parametrize("space", [PAPER, SKIPS, SMALL], ids=["paper", "skips", "small"])
@given(data=st.data())
def test_a_repaired_encoding_is_valid_and_stays_as_it_is(space, data):
    encoding = data.draw(encodings(space))
    repaired = space.repair(encoding)
    assert space.repair(repaired) == repaired
    genotype = space.decode(repaired)
    assert space.encode(genotype) == repaired
    levels, n_nodes = genotype.levels, space.settings.n_nodes
    for node, level in enumerate(levels):
        assert level <= min(n_nodes - node, space.settings.n_levels - 1)
        assert genotype.nodes[node].skip <= len(sources(levels, node))
    for kind in ("block", "kernel"):
        assert of_kind(repaired, kind) == of_kind(encoding, kind)


@given(encoding=encodings(PAPER))
def test_an_encoding_that_is_a_genotype_needs_no_repair_and_any_other_is_no_genotype(encoding):
    if PAPER.repair(encoding) == encoding:
        assert PAPER.encode(PAPER.decode(encoding)) == encoding
    else:
        with pytest.raises(ConfigError, match="genotype must"):
            PAPER.decode(encoding)


def test_repair_goes_from_left_to_right_and_then_caps():
    levels = [0, 1, 0, 3, 4, 4, 4, 3, 2, 1]
    encoding = [number for level in levels for number in (level, 0, 0, 1)]
    repaired = PAPER.repair(encoding)
    assert of_kind(repaired, "level") == (0, 1, 0, 1, 2, 3, 4, 3, 2, 1)
    # Nodes 2 and 3 have nodes 0 and 1; 4, 5 and 6 have none of their level.
    assert of_kind(repaired, "skip") == (0, 0, 1, 1, 0, 0, 0, 1, 1, 1)


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32), free=st.sampled_from(FREE), of_paper=st.booleans())
def test_masked_variables_never_change(seed, free, of_paper):
    generator = np.random.default_rng(seed)
    whole = PAPER if of_paper else SKIPS
    base = whole.sample(generator)
    space = whole.masked(free, base)
    kept = {kind: of_kind(space.encode(base), kind) for kind in KINDS if kind not in free}
    seen = [space.sample(generator)]
    seen += [space.mutate(seen[0], generator)]
    seen += [each for name in space.variables for each in space.neighbours(seen[0], name)]
    for genotype in seen:
        for kind, values in kept.items():
            assert of_kind(space.encode(genotype), kind) == values


def test_neighbours_differ_in_the_variable_and_in_what_repair_moves():
    genotype = u_net_genotype()
    for name in PAPER.variables:
        kind, node = name.split("_")
        found = PAPER.neighbours(genotype, name)
        assert genotype not in found
        assert len(set(found)) == len(found)
        for neighbour in found:
            distance = PAPER.distance(genotype, neighbour)
            if kind in ("block", "kernel"):
                assert distance == 1
                assert neighbour.nodes[int(node)] != genotype.nodes[int(node)]
            assert distance >= 1
    deeper = PAPER.neighbours(genotype, "level_1")
    assert [neighbour.levels for neighbour in deeper] == [(0, 0, 1, 2, 3, 4, 3, 2, 1, 0)]


def test_a_mutation_is_a_neighbour_and_a_space_of_one_has_none():
    generator = np.random.default_rng(0)
    genotype = SMALL.sample(generator)
    for _ in range(100):
        child = SMALL.mutate(genotype, generator)
        assert child in [
            each for name in SMALL.variables for each in SMALL.neighbours(genotype, name)
        ]
        genotype = child
    one = MixedBlockSpace(MixedBlockSpaceSettings(kernels=(3,)), free=("kernel",))
    assert one.variables == ()
    assert one.mutate(one.base, generator) == one.base == one.sample(generator)


def test_a_genotype_with_another_masked_value_or_a_broken_tie_is_not_of_the_space():
    micro = SMALL.masked(("block", "kernel"))
    deeper = SMALL.neighbours(SMALL.base, "level_1")[0]
    assert SMALL.is_valid(deeper)
    assert not micro.is_valid(deeper)
    given = MixedBlockSpaceSettings(n_nodes=6, n_levels=3, tied=((0, 1),))
    tied = MixedBlockSpace(given)
    untied = SMALL.neighbours(SMALL.base, "block_0")[0]
    assert SMALL.is_valid(untied)
    assert not tied.is_valid(untied)
    assert not SMALL.is_valid(u_net_genotype(10, 5))
    with pytest.raises(ConfigError, match="a genotype must be of the space"):
        tied.canonical(untied)


def test_options_of_a_variable_are_what_its_numbers_stand_for():
    assert SMALL.options("level_2") == (0, 1, 2)
    assert SMALL.options("block_0") == ("vgg", "residual", "dense", "inception")
    assert SMALL.options("kernel_5") == (3, 5, 7)
    assert SMALL.options("skip_5") == (0, 1)


def test_tied_nodes_share_one_block_and_one_kernel():
    given = MixedBlockSpaceSettings(n_nodes=6, n_levels=3, tied=((0, 1, 2), (3, 4, 5)))
    space = MixedBlockSpace(given, free=("block", "kernel"))
    assert space.variables == ("block_0_1_2", "kernel_0_1_2", "block_3_4_5", "kernel_3_4_5")
    assert space.n_encodings == 144
    generator = np.random.default_rng(0)
    drawn = {space.sample(generator) for _ in range(2000)}
    assert len(drawn) == 144
    for genotype in drawn:
        assert genotype.levels == (0, 1, 2, 2, 1, 0)
        for half in (genotype.nodes[:3], genotype.nodes[3:]):
            assert len({(node.block, node.kernel) for node in half}) == 1


def test_a_candidate_becomes_the_settings_of_its_network():
    space = MixedBlockSpace(MixedBlockSpaceSettings(width=8, max_width=64))
    genotype = space.sample(np.random.default_rng(3))
    assert space.to_settings(genotype) == MixedBlockSettings(
        genotype=str(genotype), width=8, max_width=64
    )


def test_the_genotypes_of_the_authors_are_of_the_space_with_two_sources():
    for digits in (
        "0320100012202000320031203001232111210121",
        "0210132021102000100112102020100111220311",
        "0000100022203000320031213002232111210000",
    ):
        genotype = MixedGenotype.from_digits(digits)
        assert SKIPS.decode(SKIPS.encode(genotype)) == genotype
        assert "".join(map(str, SKIPS.encode(genotype))) == digits


def test_a_space_of_other_blocks_encodes_by_its_own_list():
    space = MixedBlockSpace(MixedBlockSpaceSettings(blocks=("dense", "vgg"), kernels=(7,)))
    assert {node.block for node in space.base.nodes} == {"dense"}
    with pytest.raises(ConfigError, match="of the space, at node 1 of it, got 'residual7@0'"):
        space.encode(u_net_genotype(block="residual", kernel=7))
    with pytest.raises(ConfigError, match="must have 10 nodes, got 6"):
        space.encode(u_net_genotype(6, 3))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"n_nodes": 1}, "n_nodes must be 2 to 64"),
        ({"n_levels": 0}, "n_levels must be 1 to 10"),
        ({"n_skip_sources": -1}, "n_skip_sources must be 0 to 9"),
        ({"blocks": ()}, "blocks must name some of vgg"),
        ({"blocks": ("vgg", "vgg")}, "each once"),
        ({"kernels": (3, 4)}, "kernels must name some of 3, 5, 7"),
        ({"tied": ((0, 10),)}, "tied must name nodes from 0 to 9"),
        ({"tied": ((0, 1), (1, 2))}, "each in one group"),
        ({"tied": ((),)}, "tied must name nodes"),
        ({"width": 0}, "width must be at least 1"),
    ],
)
def test_settings_of_no_space_are_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        MixedBlockSpaceSettings(**changes)


@pytest.mark.parametrize("free", [(), ("level",), ("level", "block"), ("width",)])
def test_a_mask_that_repair_would_break_is_refused(free):
    with pytest.raises(ConfigError, match="free must name"):
        MixedBlockSpace(free=free)


def test_an_encoding_of_another_length_is_refused():
    with pytest.raises(ConfigError, match="an encoding must have 40 numbers"):
        PAPER.decode([0] * 39)


@pytest.mark.parametrize("n_skip_sources", [0, 1, 3])
@pytest.mark.parametrize("shape", [(2, 1), (3, 2), (7, 4), (12, 6)])
def test_nodes_and_levels_are_settings(shape, n_skip_sources):
    space = MixedBlockSpace(
        MixedBlockSpaceSettings(n_nodes=shape[0], n_levels=shape[1], n_skip_sources=n_skip_sources)
    )
    generator = np.random.default_rng(0)
    for _ in range(50):
        genotype = space.sample(generator)
        assert max(genotype.levels) < shape[1]
        assert max(node.skip for node in genotype.nodes) <= n_skip_sources
