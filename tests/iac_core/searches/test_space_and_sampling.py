"""The genotypes of a cell as a space, and how paths of a super-net are drawn from it."""

from collections import Counter

import numpy as np
import pytest

from iac_core.cells.genotype import EDGES_PER_NODE, Genotype, cell_edges
from iac_core.config import CellSettings
from iac_core.errors import ConfigError
from iac_core.searches.sampling import path_of_step
from iac_core.searches.space import CellSpace

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


@pytest.mark.parametrize("sampling", ["uniform", "fair"])
def test_the_path_of_a_step_is_valid_and_depends_on_seed_and_step_alone(sampling):
    space = CellSpace(CELL, 3, some_mask(CELL, 1, 4))
    paths = [path_of_step(space, sampling, step=step, seed=5) for step in range(40)]
    for path in paths:
        assert_valid(space, path)
    assert path_of_step(space, sampling, step=17, seed=5) == paths[17]
    assert [path_of_step(space, sampling, step=step, seed=6) for step in range(40)] != paths


def test_fair_paths_train_every_pair_into_a_node_equally_often():
    space = CellSpace(CELL, 3)
    n_rounds = 30  # a multiple of the 1, 3, 6 and 10 pairs of sources
    paths = [path_of_step(space, "fair", step=step, seed=0) for step in range(7 * n_rounds)]
    counts = sum(space.mask(path).astype(int) for path in paths)[0]
    for edge, (_, target) in enumerate(space.edges):
        expected = n_rounds * EDGES_PER_NODE // target
        assert counts[edge].tolist() == [0] + 7 * [expected]


def test_every_edge_of_a_fair_round_takes_every_operation_once():
    space = CellSpace(CELL, 3)
    counts = sum(
        space.mask(path_of_step(space, "fair", step=step, seed=0)).astype(int)
        for step in range(7, 14)
    )[0]
    kept = counts.any(axis=-1)
    assert kept.sum() == EDGES_PER_NODE * CELL.n_nodes
    assert (counts[kept][:, 1:] == 1).all()
