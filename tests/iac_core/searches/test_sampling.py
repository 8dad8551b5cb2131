"""How paths of a super-net are drawn from the genotypes of a cell."""

import numpy as np
import pytest

from iac_core.cells.genotype import EDGES_PER_NODE, cell_edges
from iac_core.config import CellSettings
from iac_core.searches.cell_space import CellSpace
from iac_core.searches.sampling import path_of_step

CELL = CellSettings()


def half_of_the_operations():
    """At least one on every edge."""
    generator = np.random.default_rng(4)
    allowed = generator.random((1, len(cell_edges(CELL.n_nodes)), len(CELL.operations))) < 0.5
    allowed[..., 3] |= ~allowed[..., 1:].any(axis=-1)
    return allowed


@pytest.mark.parametrize("sampling", ["uniform", "fair"])
def test_the_path_of_a_step_is_valid_and_depends_on_seed_and_step_alone(sampling):
    space = CellSpace(CELL, 3, half_of_the_operations())
    paths = [path_of_step(space, sampling, step=step, seed=5) for step in range(40)]
    for path in paths:
        assert space.is_valid(path)
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
