"""What a search chooses from: the protocol of a space, and the genotypes of a cell."""

from collections.abc import Sequence
from itertools import combinations
from typing import Protocol, TypeVar

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from iac_core.cells.genotype import (
    EDGES_PER_NODE,
    N_INPUTS,
    Genotype,
    GenotypeEdge,
    cell_edges,
)
from iac_core.config import CellSettings, require

C = TypeVar("C")


class SearchSpace(Protocol[C]):
    """Candidates that can be drawn and changed. A candidate is hashable."""

    def sample(self, generator: np.random.Generator) -> C:
        """Draw a candidate."""
        ...

    def mutate(self, candidate: C, generator: np.random.Generator) -> C:
        """Return a neighbour of a candidate; the candidate itself if it has none."""
        ...


class VariableSpace(SearchSpace[C], Protocol[C]):
    """A space whose candidates are settings of variables, each with a few options."""

    @property
    def variables(self) -> Sequence[str]:
        """Names of the variables that are free and have more than one option."""
        ...

    def neighbours(self, candidate: C, variable: str) -> list[C]:
        """Return a candidate with each other option of one variable.

        What a change makes invalid is repaired, so other variables may move too. No two are
        equal, and none is the candidate itself.
        """
        ...


class CellSpace:
    """Genotypes of a cell: two distinct sources for each node, an operation for each kept edge.

    Args:
        cell: The cell; ``none`` is never drawn.
        n_levels: Skip levels of the backbone; they share one architecture unless the cell says
            otherwise.
        allowed: Operations that may be drawn, ``(levels, edges, ops)`` over the cell's operations;
            None allows all. An edge without any is never kept.

    Raises:
        ConfigError: If a node has fewer than two edges with an operation left.
    """

    def __init__(
        self,
        cell: CellSettings,
        n_levels: int,
        allowed: Bool[ndarray, "levels edges ops"] | None = None,
    ) -> None:
        self.operations, self.n_nodes = cell.operations, cell.n_nodes
        self.edges = cell_edges(cell.n_nodes)
        self.n_architectures = 1 if cell.architecture == "shared" else n_levels
        shape = (self.n_architectures, len(self.edges), len(self.operations))
        is_real = np.array([name != "none" for name in self.operations])
        self.allowed: ndarray = np.ones(shape, dtype=bool) if allowed is None else allowed.copy()
        require(self.allowed.shape == shape, f"allowed must have shape {shape}", allowed)
        self.allowed &= is_real
        for level in range(self.n_architectures):
            for target in self.targets:
                n_left = len(self.sources(level, target))
                require(
                    n_left >= EDGES_PER_NODE,
                    f"every node must have {EDGES_PER_NODE} edges with an operation left",
                    f"{n_left} into node {target}",
                )

    @property
    def targets(self) -> range:
        """States that are nodes."""
        return range(N_INPUTS, N_INPUTS + self.n_nodes)

    def sources(self, level: int, target: int) -> list[int]:
        """Return the states that may enter a node."""
        return [
            source
            for edge, (source, end) in enumerate(self.edges)
            if end == target and self.allowed[level, edge].any()
        ]

    def source_pairs(self, level: int, target: int) -> list[tuple[int, ...]]:
        """Return every choice of a node's sources."""
        return list(combinations(self.sources(level, target), EDGES_PER_NODE))

    def operations_of(self, level: int, source: int, target: int) -> list[str]:
        """Return the operations that an edge may have."""
        row = self.allowed[level, self.edges.index((source, target))]
        return [name for name, is_allowed in zip(self.operations, row, strict=True) if is_allowed]

    def sample(self, generator: np.random.Generator) -> Genotype:
        """Draw a genotype: sources uniformly, then each kept edge's operation uniformly."""
        levels = []
        for level in range(self.n_architectures):
            kept = []
            for target in self.targets:
                pairs = self.source_pairs(level, target)
                for source in pairs[int(generator.integers(len(pairs)))]:
                    names = self.operations_of(level, source, target)
                    name = names[int(generator.integers(len(names)))]
                    kept.append(GenotypeEdge(target, source, name))
            levels.append(kept)
        return self.genotype(levels)

    def mutate(self, candidate: Genotype, generator: np.random.Generator) -> Genotype:
        """Change the operation of one kept edge, or its source, with equal probability.

        A change of source keeps the operation if the new edge allows it. All changes of the drawn
        sort are equally likely; if it has none the other sort is drawn from.
        """
        sorts = [self._other_operations, self._other_sources]
        for index in generator.permutation(len(sorts)):
            changes = sorts[index](candidate, generator)
            if changes:
                level, place, edge = changes[int(generator.integers(len(changes)))]
                levels = [list(edges) for edges in candidate.levels]
                levels[level][place] = edge
                return self.genotype(levels)
        return candidate

    def mask(self, candidate: Genotype) -> Bool[ndarray, "levels edges ops"]:
        """Return the (edge, operation) pairs of a genotype."""
        return genotype_mask(candidate, self.operations)

    def genotype(self, levels: Sequence[Sequence[GenotypeEdge]]) -> Genotype:
        """Return the genotype of kept edges, in canonical order."""
        return Genotype(self.n_nodes, tuple(tuple(sorted(edges)) for edges in levels))

    def _other_operations(
        self, candidate: Genotype, generator: np.random.Generator
    ) -> list[tuple[int, int, GenotypeEdge]]:
        return [
            (level, place, GenotypeEdge(edge.target, edge.source, name))
            for level, edges in enumerate(candidate.levels)
            for place, edge in enumerate(edges)
            for name in self.operations_of(level, edge.source, edge.target)
            if name != edge.operation
        ]

    def _other_sources(
        self, candidate: Genotype, generator: np.random.Generator
    ) -> list[tuple[int, int, GenotypeEdge]]:
        changes = []
        for level, edges in enumerate(candidate.levels):
            taken = {(edge.source, edge.target) for edge in edges}
            for place, edge in enumerate(edges):
                for source in self.sources(level, edge.target):
                    if (source, edge.target) in taken:
                        continue
                    names = self.operations_of(level, source, edge.target)
                    name = edge.operation
                    if name not in names:
                        name = names[int(generator.integers(len(names)))]
                    changes.append((level, place, GenotypeEdge(edge.target, source, name)))
        return changes


def genotype_mask(
    genotype: Genotype, operations: Sequence[str]
) -> Bool[ndarray, "levels edges ops"]:
    """Return the (edge, operation) pairs that a genotype keeps.

    Args:
        genotype: Kept edges of each architecture.
        operations: Names along the last axis.
    """
    edges = {edge: index for index, edge in enumerate(cell_edges(genotype.n_nodes))}
    columns = {name: column for column, name in enumerate(operations)}
    mask = np.zeros((len(genotype.levels), len(edges), len(operations)), dtype=bool)
    for level, kept in enumerate(genotype.levels):
        for edge in kept:
            mask[level, edges[edge.source, edge.target], columns[edge.operation]] = True
    return mask
