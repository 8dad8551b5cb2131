"""The genotypes of a cell as a space."""

from collections import Counter

import numpy as np
import pytest

from iac_core.cells.genotype import (
    EDGES_PER_NODE,
    Genotype,
    GenotypeEdge,
    cell_edges,
)
from iac_core.config import CellSettings
from iac_core.errors import ConfigError
from iac_core.searches.cell_space import CellSpace

CELL = CellSettings()


def pairs_of(genotype):
    return [
        (level, edge.source, edge.target, edge.operation)
        for level, edges in enumerate(genotype.levels)
        for edge in edges
    ]


def assert_valid(space, genotype):
    assert Genotype.from_json(genotype.to_json()) == genotype
    for edges in genotype.levels:
        per_node = Counter(edge.target for edge in edges)
        assert per_node == dict.fromkeys(space.targets, EDGES_PER_NODE)
        assert len({(edge.source, edge.target) for edge in edges}) == len(edges)
    assert not (space.mask(genotype) & ~space.allowed).any()


def some_mask(cell, levels, seed):
    """Half of the operations, at least one on every edge."""
    generator = np.random.default_rng(seed)
    allowed = generator.random((levels, len(cell_edges(cell.n_nodes)), len(cell.operations))) < 0.5
    allowed[..., 3] |= ~allowed[..., 1:].any(axis=-1)
    return allowed


@pytest.mark.parametrize("architecture", ["shared", "per_level"])
@pytest.mark.parametrize("masked", [False, True])
def test_drawn_and_mutated_genotypes_are_of_the_space(architecture, masked):
    cell = CellSettings(architecture=architecture)
    levels = 1 if architecture == "shared" else 3
    space = CellSpace(cell, 3, some_mask(cell, levels, 0) if masked else None)
    generator = np.random.default_rng(1)
    genotype = space.sample(generator)
    for _ in range(200):
        assert_valid(space, genotype)
        assert len(genotype.levels) == levels
        child = space.mutate(genotype, generator)
        changed = set(pairs_of(child)) - set(pairs_of(genotype))
        assert len(changed) == 1
        genotype = child


def test_every_pair_is_drawn_and_reached_by_mutations():
    space = CellSpace(CELL, 3)
    generator = np.random.default_rng(0)
    real = space.allowed.sum()
    drawn = sum(space.mask(space.sample(generator)).astype(int) for _ in range(1500))
    assert (drawn > 0).sum() == real
    genotype, reached = space.sample(generator), np.zeros(space.allowed.shape, dtype=bool)
    for _ in range(3000):
        genotype = space.mutate(genotype, generator)
        reached |= space.mask(genotype)
    assert reached.sum() == real


def test_a_space_of_one_genotype_mutates_to_itself():
    cell = CellSettings(n_nodes=1, operations=("none", "skip_connect"))
    space = CellSpace(cell, 3)
    only = space.sample(np.random.default_rng(0))
    assert space.mutate(only, np.random.default_rng(1)) == only


def test_a_node_without_two_live_edges_is_refused():
    allowed = np.ones((1, 14, 8), dtype=bool)
    allowed[0, 0] = False
    with pytest.raises(ConfigError, match="2 edges with an operation left, got '1 into node 2'"):
        CellSpace(CELL, 3, allowed)


def test_an_edge_without_operations_is_never_kept():
    allowed = np.ones((1, 14, 8), dtype=bool)
    allowed[0, 2, 1:] = False  # the first edge into the second node; `none` does not count
    space = CellSpace(CELL, 3, allowed)
    generator = np.random.default_rng(0)
    assert not any(space.mask(space.sample(generator))[0, 2].any() for _ in range(100))


def node(*edges, target=2):
    return [GenotypeEdge(target, source, name) for source, name in edges]


def changed_nodes(space, genotype, variable):
    """The (source, operation) pairs of the last node, in each neighbour."""
    return [
        [(edge.source, edge.operation) for edge in one.levels[0] if edge.target == 3]
        for one in space.neighbours(genotype, variable)
    ]


def two_nodes(*edges):
    return Genotype(
        2, (tuple(node((0, "skip_connect"), (1, "skip_connect")) + node(*edges, target=3)),)
    )


def test_a_node_has_a_variable_for_its_sources_and_one_for_each_operation():
    space = CellSpace(CellSettings(n_nodes=2, architecture="per_level"), 2)
    expected = []
    for level in range(2):
        expected += [f"first_{level}_2", f"second_{level}_2"]
        expected += [f"{kind}_{level}_3" for kind in ("sources", "first", "second")]
    assert list(space.variables) == expected  # the first node has one choice of sources
    assert space.options("sources_0_3") == ((0, 1), (0, 2), (1, 2))
    assert space.options("first_1_3") == CELL.operations[1:]


def test_an_edge_that_stays_keeps_its_operation_and_a_new_one_takes_that_of_the_one_that_goes():
    space = CellSpace(CellSettings(n_nodes=2), 1)
    genotype = two_nodes((0, "skip_connect"), (1, "max_pool_3x3"))
    assert changed_nodes(space, genotype, "sources_0_3") == [
        [(0, "skip_connect"), (2, "max_pool_3x3")],
        [(1, "max_pool_3x3"), (2, "skip_connect")],
    ]
    operations = changed_nodes(space, genotype, "second_0_3")
    assert [edges[0] for edges in operations] == 6 * [(0, "skip_connect")]
    others = [name for name in CELL.operations[1:] if name != "max_pool_3x3"]
    assert [edges[1] for edges in operations] == [(1, name) for name in others]


def test_an_operation_that_a_new_edge_does_not_allow_becomes_its_first():
    cell = CellSettings(n_nodes=2)
    allowed = np.ones((1, 5, 8), dtype=bool)
    allowed[0, 4, cell.operations.index("max_pool_3x3")] = False  # state 2 to the second node
    space = CellSpace(cell, 1, allowed)
    genotype = two_nodes((0, "skip_connect"), (1, "max_pool_3x3"))
    assert changed_nodes(space, genotype, "sources_0_3")[0] == [
        (0, "skip_connect"),
        (2, space.operations_of(0, 2, 3)[0]),
    ]
    moved = two_nodes((0, "skip_connect"), (2, "skip_connect"))
    names = [edges[1][1] for edges in changed_nodes(space, moved, "second_0_3")]
    assert names == [name for name in space.operations_of(0, 2, 3) if name != "skip_connect"]
    assert "max_pool_3x3" in space.options("second_0_3")


def test_what_is_no_genotype_of_the_space_is_not_valid():
    space = CellSpace(CellSettings(n_nodes=1), 1)
    good = node((0, "skip_connect"), (1, "max_pool_3x3"))
    unordered = Genotype(1, (tuple(reversed(good)),))
    assert space.is_valid(unordered)
    assert space.canonical(unordered) == Genotype(1, (tuple(good),)) != unordered
    for bad in (
        Genotype(1, ((good[0],),)),
        Genotype(1, ((good[0], good[0]),)),
        Genotype(1, (tuple(node((0, "none"), (1, "skip_connect"))),)),
        Genotype(1, (tuple(good), tuple(good))),
        Genotype(2, (tuple(good),)),
        two_nodes((0, "skip_connect"), (1, "skip_connect")),
    ):
        assert not space.is_valid(bad)
        with pytest.raises(ConfigError, match="nodes, levels and operations of the space"):
            space.canonical(bad)
