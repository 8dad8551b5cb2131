"""Which path of a single-path super-net each training step takes."""

from typing import Literal

import numpy as np

from iac_core.cells.genotype import Genotype, GenotypeEdge
from iac_core.searches.cell_space import CellSpace
from iac_core.seeding import numpy_generator

Sampling = Literal["uniform", "fair"]


def path_of_step(space: CellSpace, sampling: Sampling, *, step: int, seed: int) -> Genotype:
    """Return the path of a training step; it depends on nothing but the arguments.

    ``uniform`` draws every path on its own (Guo et al. 2020, single path one-shot). ``fair``
    follows the strict fairness of FairNAS (Chu et al. 2021), carried over from a chain of layers
    to a DAG: in a round of as many steps as there are operations the kept edges stay and each of
    them takes every operation once, in an order of its own; from round to round a node's sources
    go through all pairs, in an order of its own, so that after as many rounds as a node has pairs
    every (edge, operation) pair into it was trained equally often. Each step updates the weights
    at once; FairNAS adds up the gradients of a round (our choice, so that both samplings take
    equally many steps). Where operations were eliminated, an edge of fewer operations goes through
    them again within the round.

    Args:
        space: The cell's genotypes.
        sampling: How paths are drawn.
        step: Index of the step, from 0.
        seed: The job's seed.
    """
    if sampling == "uniform":
        return space.sample(numpy_generator(seed, "one_shot", "path", step))
    n_steps = int(space.allowed.sum(axis=-1).max())
    turn, place = divmod(step, n_steps)
    levels = []
    for level in range(space.n_architectures):
        kept = []
        for target in space.targets:
            pairs = space.source_pairs(level, target)
            cycle, row = divmod(turn, len(pairs))
            order = _permutation(len(pairs), seed, "pairs", level, target, cycle)
            for source in pairs[order[row]]:
                names = space.operations_of(level, source, target)
                again, column = divmod(place, len(names))
                drawn = _permutation(
                    len(names), seed, "operations", level, target, source, turn, again
                )
                kept.append(GenotypeEdge(target, source, names[drawn[column]]))
        levels.append(kept)
    return space.genotype(levels)


def _permutation(n: int, seed: int, *path: str | int) -> list[int]:
    generator: np.random.Generator = numpy_generator(seed, "one_shot", *path)
    order: list[int] = generator.permutation(n).tolist()
    return order
