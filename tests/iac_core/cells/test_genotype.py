import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iac_core.cells.genotype import (
    Genotype,
    GenotypeEdge,
    cell_edges,
    discretise,
    masked_softmax,
    random_genotype,
)
from iac_core.config import OPERATION_NAMES, CellSettings
from iac_core.errors import ConfigError


def test_four_nodes_have_fourteen_edges():
    assert len(cell_edges(4)) == 14


@given(st.integers(1, 5), st.integers(0, 50), st.sampled_from(["shared", "per_level"]))
def test_genotype_survives_json_and_is_canonical(n_nodes, seed, architecture):
    settings = CellSettings(n_nodes=n_nodes, architecture=architecture)
    genotype = random_genotype(settings, 3, np.random.default_rng(seed))
    assert Genotype.from_json(genotype.to_json()) == genotype
    assert len(genotype.levels) == (1 if architecture == "shared" else 3)
    for edges in genotype.levels:
        assert len(edges) == 2 * n_nodes
        assert all(edge.operation != "none" for edge in edges)
        assert len({(edge.source, edge.target) for edge in edges}) == len(edges)


def test_a_damaged_genotype_is_refused():
    with pytest.raises(ConfigError, match="genotype must be JSON"):
        Genotype.from_json("{")


def test_discretise_keeps_the_edges_with_the_best_beta_times_operation():
    operations = ("none", "skip_connect", "sep_conv_3x3")
    alpha = np.zeros((1, 5, 3))
    alpha[0, 2] = [9.0, 0.0, 1.0]  # almost all of this edge is 'none'
    alpha[0, 3, 1] = 1.0
    alpha[0, 4, 2] = 1.0
    beta = np.zeros((1, 5))
    genotype = discretise(alpha, beta, np.ones((1, 5, 3), dtype=bool), operations, 2)
    assert genotype.levels[0] == (
        GenotypeEdge(2, 0, "skip_connect"),
        GenotypeEdge(2, 1, "skip_connect"),
        GenotypeEdge(3, 1, "skip_connect"),
        GenotypeEdge(3, 2, "sep_conv_3x3"),
    )


def test_discretise_follows_beta_when_operations_tie():
    n_operations = len(OPERATION_NAMES)
    beta = np.array([[0.0, 0.0, 1.0, 0.0, 2.0]])
    shape = (1, 5, n_operations)
    genotype = discretise(np.zeros(shape), beta, np.ones(shape, dtype=bool), OPERATION_NAMES, 2)
    assert [edge.source for edge in genotype.levels[0] if edge.target == 3] == [0, 2]


@given(st.lists(st.floats(-30, 30), min_size=2, max_size=8), st.integers(0, 255))
def test_masked_softmax_sums_to_one_over_what_is_active(logits, bits):
    active = np.array([bool(bits >> index & 1) for index in range(len(logits))])
    shares = masked_softmax(np.array(logits), active)
    assert shares[~active].sum() == 0
    assert shares.sum() == pytest.approx(1.0 if active.any() else 0.0)
