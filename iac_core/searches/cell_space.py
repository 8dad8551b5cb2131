"""The space of a cell's genotypes."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

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
from iac_core.searches.space import others

_SLOTS = ("first", "second")


class _Variable(NamedTuple):
    """The sources of a node, or the operation of one of the edges from them."""

    level: int
    target: int
    slot: int | None
    options: tuple[tuple[int, ...], ...] | tuple[str, ...]


class CellSpace:
    """Genotypes of a cell: two distinct sources for each node, an operation for each kept edge.

    A node has three variables: ``sources_LEVEL_STATE``, ``first_LEVEL_STATE`` and
    ``second_LEVEL_STATE``, the operations of the edges from its two sources, the lower one first.
    In canonical form, edges are ordered by target, then source.

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
        self._variables = self._named_variables()

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

    @property
    def variables(self) -> tuple[str, ...]:
        """Names such as ``sources_0_3`` and ``first_0_3``; the states of nodes begin at 2."""
        return tuple(self._variables)

    def options(self, variable: str) -> Sequence[tuple[int, ...] | str]:
        """Return pairs of sources, or the operations that any edge into the node may have."""
        return self._variables[variable].options

    def is_valid(self, candidate: Genotype) -> bool:
        """Whether each node has two distinct sources, and each edge an allowed operation."""
        if candidate.n_nodes != self.n_nodes or len(candidate.levels) != self.n_architectures:
            return False
        targets = sorted([*self.targets] * EDGES_PER_NODE)
        for level, edges in enumerate(candidate.levels):
            if sorted(edge.target for edge in edges) != targets:
                return False
            if len({(edge.source, edge.target) for edge in edges}) < len(edges):
                return False
            for edge in edges:
                if edge.operation not in self.operations_of(level, edge.source, edge.target):
                    return False
        return True

    def canonical(self, candidate: Genotype) -> Genotype:
        """Return the genotype with ordered edges.

        Raises:
            ConfigError: If it is not valid.
        """
        rule = "a genotype must have nodes, levels and operations of the space"
        require(self.is_valid(candidate), rule, candidate)
        return self.genotype(candidate.levels)

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

    def neighbours(self, candidate: Genotype, variable: str) -> list[Genotype]:
        """Return the genotype with each other option of a variable.

        With other sources, an edge that stays keeps its operation, and the operations of edges
        that go move to those that come, in order of their sources; where one is not allowed there
        it becomes the first that is. Operations that the edge does not allow are left out.
        """
        level, target, slot, _ = self._variables[variable]
        kept = sorted(edge for edge in candidate.levels[level] if edge.target == target)
        rest = [edge for edge in candidate.levels[level] if edge.target != target]
        changed = (
            self._with_sources(level, kept)
            if slot is None
            else self._with_operations(level, kept, slot)
        )
        levels = list(candidate.levels)
        found = []
        for edges in changed:
            levels[level] = (*rest, *edges)
            found.append(self.genotype(levels))
        return others(found, candidate)

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

    def _with_sources(
        self, level: int, kept: Sequence[GenotypeEdge]
    ) -> Iterator[list[GenotypeEdge]]:
        """Yield a node's edges with every choice of sources."""
        target = kept[0].target
        for pair in self.source_pairs(level, target):
            stay = [edge for edge in kept if edge.source in pair]
            go = [edge.operation for edge in kept if edge.source not in pair]
            come = [source for source in pair if source not in [edge.source for edge in stay]]
            edges = list(stay)
            for source, name in zip(come, go, strict=True):
                names = self.operations_of(level, source, target)
                edges.append(GenotypeEdge(target, source, name if name in names else names[0]))
            yield edges

    def _with_operations(
        self, level: int, kept: Sequence[GenotypeEdge], slot: int
    ) -> Iterator[list[GenotypeEdge]]:
        """Yield a node's edges with every operation of one of them."""
        edge = kept[slot]
        for name in self.operations_of(level, edge.source, edge.target):
            edges = list(kept)
            edges[slot] = GenotypeEdge(edge.target, edge.source, name)
            yield edges

    def _named_variables(self) -> dict[str, _Variable]:
        """Name → variable with more than one option, node by node."""
        found: dict[str, _Variable] = {}
        for level in range(self.n_architectures):
            for target in self.targets:
                pairs = tuple(self.source_pairs(level, target))
                rows = [edge for edge, (_, end) in enumerate(self.edges) if end == target]
                columns = np.flatnonzero(self.allowed[level, rows].any(axis=0))
                names = tuple(self.operations[column] for column in columns)
                node = f"{level}_{target}"
                found[f"sources_{node}"] = _Variable(level, target, None, pairs)
                for slot, name in enumerate(_SLOTS):
                    found[f"{name}_{node}"] = _Variable(level, target, slot, names)
        return {name: each for name, each in found.items() if len(each.options) > 1}

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
