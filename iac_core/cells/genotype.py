"""The discrete architecture: which edges a cell keeps, with which operation. Imports no torch."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from iac_core.config import OPERATION_NAMES, CellSettings, require, require_at_least
from iac_core.errors import ConfigError

N_INPUTS = 2
EDGES_PER_NODE = 2


def cell_edges(n_nodes: int) -> tuple[tuple[int, int], ...]:
    """Return ``(source, target)`` of every edge of the searched DAG, by target, then source.

    States 0 and 1 are the cell's inputs; node i is state ``2 + i`` and takes all earlier states.

    Examples:
        >>> cell_edges(2)
        ((0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
    """
    targets = range(N_INPUTS, N_INPUTS + n_nodes)
    return tuple((source, target) for target in targets for source in range(target))


@dataclass(frozen=True, slots=True, order=True)
class GenotypeEdge:
    """One kept edge: from state ``source`` into node ``target`` through ``operation``."""

    target: int
    source: int
    operation: str


@dataclass(frozen=True, slots=True)
class Genotype:
    """The kept edges of the cell at each skip level, one entry if all levels share one cell.

    Attributes:
        n_nodes: Intermediate nodes of a cell; a cell's output is their concatenation.
        levels: Kept edges of each architecture, ordered by target, then source.
    """

    n_nodes: int
    levels: tuple[tuple[GenotypeEdge, ...], ...]

    def __post_init__(self) -> None:
        require(bool(self.levels), "a genotype must have at least one level", self.levels)
        for edges in self.levels:
            for edge in edges:
                require(
                    N_INPUTS <= edge.target < N_INPUTS + self.n_nodes
                    and 0 <= edge.source < edge.target,
                    "an edge must lead from an earlier state into a node",
                    edge,
                )

    def level(self, index: int) -> tuple[GenotypeEdge, ...]:
        """Return the edges of skip level `index` (the shared ones if there is one entry)."""
        return self.levels[index if len(self.levels) > 1 else 0]

    def to_json(self) -> str:
        """Return canonical JSON; equal genotypes give equal text.

        Examples:
            >>> genotype = Genotype(1, ((GenotypeEdge(2, 0, "skip_connect"),),))
            >>> Genotype.from_json(genotype.to_json()) == genotype
            True
        """
        levels = [
            [[edge.source, edge.target, edge.operation] for edge in edges] for edges in self.levels
        ]
        return json.dumps({"n_nodes": self.n_nodes, "levels": levels}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Genotype":
        """Read what `to_json` wrote.

        Raises:
            ConfigError: If the text is no genotype.
        """
        try:
            raw: dict[str, Any] = json.loads(text)
            levels = tuple(
                tuple(
                    sorted(
                        GenotypeEdge(int(target), int(source), str(operation))
                        for source, target, operation in edges
                    )
                )
                for edges in raw["levels"]
            )
            return cls(int(raw["n_nodes"]), levels)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(
                "a genotype must be JSON of n_nodes and levels",
                value=repr(text),
            ) from error


def masked_softmax(
    logits: Float[ndarray, "*batch n"], active: Bool[ndarray, "*batch n"]
) -> Float[ndarray, "*batch n"]:
    """Softmax over the active entries of the last axis; 0 where inactive.

    A row without any active entry is all zeros.

    Examples:
        >>> masked_softmax(np.zeros(4), np.array([True, True, False, False])).tolist()
        [0.5, 0.5, 0.0, 0.0]
    """
    top = np.max(logits, axis=-1, keepdims=True, where=active, initial=-np.inf)
    top = np.where(np.isfinite(top), top, 0.0)
    weights = np.where(active, np.exp(np.where(active, logits - top, 0.0)), 0.0)
    total = weights.sum(axis=-1, keepdims=True)
    shares: ndarray = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    return shares


def live_edges(
    active: Bool[ndarray, "*levels edges ops"], operations: Sequence[str]
) -> Bool[ndarray, "*levels edges"]:
    """Return which edges still carry something: an active operation other than ``none``."""
    counts = np.array([name != "none" for name in operations])
    live: ndarray = (active & counts).any(axis=-1)
    return live


def discretise(
    alpha: Float[ndarray, "levels edges ops"],
    beta: Float[ndarray, "levels edges"],
    active: Bool[ndarray, "levels edges ops"],
    operations: Sequence[str],
    n_nodes: int,
) -> Genotype:
    """Choose the genotype that the logits stand for (PC-DARTS, section 4.5 of the notes).

    The score of an edge is softmax(beta) among the edges into its node × the largest
    softmax(alpha) of an operation other than ``none``. A node keeps its two best edges, each with
    that operation.

    Args:
        alpha: Logits of operations.
        beta: Logits of edges.
        active: Operations still in the graph; the softmax runs over these.
        operations: Names along the last axis of alpha.
        n_nodes: Intermediate nodes.

    Returns:
        The genotype, with as many levels as alpha has.
    """
    choice = choose(alpha, beta, active, operations, n_nodes)
    return chosen_genotype(choice, tuple(operations), n_nodes)


def choose(
    alpha: Float[ndarray, "levels edges ops"],
    beta: Float[ndarray, "levels edges"],
    active: Bool[ndarray, "levels edges ops"],
    operations: Sequence[str],
    n_nodes: int,
) -> Int[ndarray, "levels edges"]:
    """Return `discretise`'s choice as numbers: the operation of a kept edge, -1 of any other."""
    from iac_core.kernels.choice import choose_edges  # compiled loops: loaded where used

    targets = np.array([target for _, target in cell_edges(n_nodes)])
    real = np.array([name != "none" for name in operations])
    choice = np.empty(beta.shape, dtype=np.int64)
    for level in range(len(alpha)):
        choose_edges(
            np.ascontiguousarray(alpha[level], dtype=np.float64),
            np.ascontiguousarray(beta[level], dtype=np.float64),
            np.ascontiguousarray(active[level]),
            targets,
            real,
            EDGES_PER_NODE,
            choice[level],
        )
    return choice


def chosen_genotype(
    choice: Int[ndarray, "levels edges"], operations: Sequence[str], n_nodes: int
) -> Genotype:
    """Return the genotype of a choice."""
    edges = cell_edges(n_nodes)
    return Genotype(
        n_nodes,
        tuple(
            tuple(
                GenotypeEdge(edges[edge][1], edges[edge][0], operations[level[edge]])
                for edge in np.flatnonzero(level >= 0)
            )
            for level in choice
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomCellSettings:
    """A random genotype as an arm of its own.

    Attributes:
        draw: Number of the draw, the same genotype for every seed of the job; None draws a
            genotype for each seed.
        operations: Operations to draw from; None are those of the cell.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    draw: int | None = None
    operations: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        require_at_least(0, draw=self.draw)
        if self.operations is not None:
            CellSettings(operations=self.operations)  # the same rules


@dataclass(frozen=True, slots=True, kw_only=True)
class UniformCellSettings:
    """The genotype with one operation on every edge as an arm: the simple rule to beat.

    Attributes:
        operation: The operation.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    operation: str

    def __post_init__(self) -> None:
        names = [name for name in OPERATION_NAMES if name != "none"]
        require(
            self.operation in names, f"operation must be among {', '.join(names)}", self.operation
        )


def random_genotype(
    settings: CellSettings, n_levels: int, generator: np.random.Generator
) -> Genotype:
    """Draw a genotype uniformly: two distinct sources for each node, an operation for each edge.

    Args:
        settings: The cell; ``none`` is never drawn.
        n_levels: Skip levels of the backbone; one architecture is drawn if they share it.
        generator: Where the draw comes from.
    """
    real = [name for name in settings.operations if name != "none"]

    def draw_cell() -> tuple[GenotypeEdge, ...]:
        chosen = []
        for target in range(N_INPUTS, N_INPUTS + settings.n_nodes):
            for source in generator.choice(target, size=EDGES_PER_NODE, replace=False):
                operation = real[int(generator.integers(len(real)))]
                chosen.append(GenotypeEdge(target, int(source), operation))
        return tuple(sorted(chosen))

    n_architectures = 1 if settings.architecture == "shared" else n_levels
    return Genotype(settings.n_nodes, tuple(draw_cell() for _ in range(n_architectures)))


def uniform_genotype(settings: CellSettings, n_levels: int, operation: str) -> Genotype:
    """Return the genotype whose nodes apply one operation to both inputs of the cell.

    Args:
        settings: The cell.
        n_levels: Skip levels of the backbone; one architecture is enough if they share it.
        operation: On every kept edge.
    """
    cell = tuple(
        GenotypeEdge(target, source, operation)
        for target in range(N_INPUTS, N_INPUTS + settings.n_nodes)
        for source in range(N_INPUTS)
    )
    n_architectures = 1 if settings.architecture == "shared" else n_levels
    return Genotype(settings.n_nodes, (cell,) * n_architectures)
