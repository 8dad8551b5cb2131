"""Small search spaces of every kind, each with a toy score."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from search_runs import Words, separable, toy_score

from iac_core.backbones.mixed_block.genotype import u_net_genotype
from iac_core.cells.genotype import cell_edges
from iac_core.config import CellSettings
from iac_core.searches.cell_space import CellSpace
from iac_core.searches.mixed_block import MixedBlockSpace, n_topologies
from iac_core.searches.mixed_block_settings import MixedBlockSpaceSettings

_EFFECTS = np.random.default_rng(5).permutation(10_000) / 64
"""Distinct numbers whose sums are exact."""


@dataclass(frozen=True)
class Case:
    """A space.

    Attributes:
        space: The space.
        score: Of its candidates.
        foreign: A candidate of another space.
        n: Candidates.
        is_separable: Whether the score is a sum over variables, each of which can take its best
            value whatever the others are.
    """

    space: Any
    score: Callable[[Any], float]
    foreign: Any
    n: int
    is_separable: bool = True


def _cell(*, n_nodes=1, real=("skip_connect", "sep_conv_3x3"), masked=False, levels=1):
    architecture = "shared" if levels == 1 else "per_level"
    cell = CellSettings(n_nodes=n_nodes, operations=("none", *real), architecture=architecture)
    shape = (levels, len(cell_edges(n_nodes)), len(cell.operations))
    allowed = np.random.default_rng(1).random(shape) < 0.6 if masked else np.ones(shape, bool)
    allowed[..., 1] |= ~allowed[..., 1:].any(axis=-1)
    return CellSpace(cell, levels, allowed)


def cell_score(space):
    """Return a score that is a sum over nodes: of its sources, and of each operation."""

    def score(genotype):
        total = 0.0
        for level, target in product(range(space.n_architectures), space.targets):
            edges = [edge for edge in genotype.levels[level] if edge.target == target]
            first, second = sorted(edge.source for edge in edges)
            effects = _EFFECTS[100 * (10 * level + target) :]
            total += effects[10 * first + second]
            total += sum(effects[80 + space.operations.index(edge.operation)] for edge in edges)
        return total

    return score


def mixed_block_score(space):
    """Return a score that is a sum over nodes: of the block, and of the kernel."""

    def score(genotype):
        values = space.encode(genotype)
        pairs = zip(values[1::4], values[2::4], strict=True)
        return sum(
            _EFFECTS[20 * node + block] + _EFFECTS[20 * node + 10 + kernel]
            for node, (block, kernel) in enumerate(pairs)
        )

    return score


_DRAWN = np.random.default_rng(0)
_SHARED = _cell(n_nodes=2)
_LEVELS = _cell(levels=2, real=("skip_connect", "sep_conv_3x3", "max_pool_3x3"))
_MASKED = _cell(n_nodes=2, real=("skip_connect", "sep_conv_3x3", "max_pool_3x3"), masked=True)
_WHOLE = MixedBlockSpace(
    MixedBlockSpaceSettings(n_nodes=4, n_levels=2, blocks=("vgg", "dense"), kernels=(3,))
)
_N_WHOLE = n_topologies(4, 2, n_skip_sources=1) * 2**4
_MICRO = MixedBlockSpace(
    MixedBlockSpaceSettings(n_nodes=3, blocks=("vgg", "dense"), kernels=(3, 5)),
    free=("block", "kernel"),
)

SEARCH_SPACES = {
    "words": Case(Words(4, 3), separable, (3, 0, 0, 0), 3**4),
    "cell": Case(_SHARED, cell_score(_SHARED), _LEVELS.sample(_DRAWN), 4 * 3 * 4),
    "cells": Case(_LEVELS, cell_score(_LEVELS), _SHARED.sample(_DRAWN), 9 * 9),
    "masked_cell": Case(_MASKED, toy_score, _LEVELS.sample(_DRAWN), 4 * (4 + 2 + 2), False),
    "mixed_block": Case(_WHOLE, toy_score, u_net_genotype(4, 2, kernel=5), _N_WHOLE, False),
    "micro": Case(_MICRO, mixed_block_score(_MICRO), u_net_genotype(3, 1), 4**3),
}
"""Name → space, small enough to be seen whole."""


def all_candidates(space):
    """Every candidate that changes of one variable reach from any one."""
    first = space.sample(np.random.default_rng(0))
    found, waiting = {first}, [first]
    while waiting:
        candidate = waiting.pop()
        for variable in space.variables:
            new = set(space.neighbours(candidate, variable)) - found
            found |= new
            waiting += new
    return found
