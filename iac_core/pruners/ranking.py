"""What operation pruners share: how far distributions moved, and what may be removed."""

import functools
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from iac_core.cells.genotype import EDGES_PER_NODE, choose, chosen_genotype, live_edges
from iac_core.types import SearchState


def jensen_shannon(
    p: Float[ndarray, "*batch n"], q: Float[ndarray, "*batch n"]
) -> Float[ndarray, "*batch"]:
    """Return the Jensen–Shannon divergence in bits, within 0 and 1.

    ``½ KL(p‖m) + ½ KL(q‖m)`` with ``m = (p + q)/2`` and logarithms to base 2: the square of
    ``scipy.spatial.distance.jensenshannon(p, q, base=2)``. Entries where both are 0 count nothing.

    Examples:
        >>> float(jensen_shannon(np.array([1.0, 0.0]), np.array([0.0, 1.0])))
        1.0
    """
    middle = (p + q) / 2

    def divergence(a: ndarray) -> ndarray:
        ratio = np.divide(a, middle, out=np.ones_like(a), where=a > 0)
        terms: ndarray = a * np.log2(ratio)
        return np.asarray(terms.sum(axis=-1))

    return np.asarray(np.maximum((divergence(p) + divergence(q)) / 2, 0.0))


def weakest(
    importance: Float[ndarray, " ops"], active: Bool[ndarray, " ops"], n: int
) -> list[int]:
    """Return the n active operations of least importance, weakest first; ties by position."""
    order = np.argsort(importance, kind="stable")
    return [int(index) for index in order if active[index]][:n]


def removable(
    candidates: Iterable[int],
    keep: Bool[ndarray, "edges ops"],
    edge: int,
    edges: Sequence[tuple[int, int]],
    operations: Sequence[str],
) -> list[int]:
    """Return the candidates that one edge may lose, in their order.

    An edge never loses its last operation, and a node never goes below two edges that carry
    something other than ``none``.

    Args:
        candidates: Operations to remove, weakest first.
        keep: What stays so far, over all edges; not changed.
        edge: The edge.
        edges: ``(source, target)`` of every edge.
        operations: Names of the operations.
    """
    into = [index for index, (_, target) in enumerate(edges) if target == edges[edge][1]]
    trial = keep.copy()
    removed = []
    for operation in candidates:
        trial[edge, operation] = False
        n_live = int(live_edges(trial[into], operations).sum())
        if trial[edge].any() and (n_live >= EDGES_PER_NODE or operations[operation] == "none"):
            removed.append(operation)
        else:
            trial[edge, operation] = True
    return removed


def has_spare_edges(
    keep: Bool[ndarray, "edges ops"],
    edge: int,
    edges: Sequence[tuple[int, int]],
    operations: Sequence[str],
) -> bool:
    """Return whether the node that an edge enters has more live edges than it needs."""
    into = [index for index, (_, target) in enumerate(edges) if target == edges[edge][1]]
    return int(live_edges(keep[into], operations).sum()) > EDGES_PER_NODE


def weakest_edges(
    beta: Float[ndarray, " edges"],
    keep: Bool[ndarray, "edges ops"],
    into: Int[ndarray, " n"],
    operations: Sequence[str],
) -> list[int]:
    """Return the edges that a node may lose, weakest first: all live ones but the best two.

    Only edges that still have ``none`` can go: that is what they keep.

    Args:
        beta: Logits of the edges.
        keep: Operations that stay.
        into: The edges into the node.
        operations: Names of the operations.
    """
    live = live_edges(keep, operations)
    none = list(operations).index("none")
    ranked = sorted((edge for edge in into if live[edge]), key=lambda edge: (beta[edge], edge))
    n_free = max(0, len(ranked) - EDGES_PER_NODE)
    return [int(edge) for edge in ranked[:n_free] if keep[edge, none]]


def genotype_of(state: SearchState) -> str:
    """Return the JSON of the genotype that a state's logits stand for."""
    n_nodes = state.edges[-1][1] - 1
    choice = choose(state.alpha, state.beta, state.active, state.operations, n_nodes)
    return _json_of(choice.tobytes(), len(choice), state.operations, n_nodes)


@functools.lru_cache(maxsize=4096)
def _json_of(choice: bytes, n_levels: int, operations: tuple[str, ...], n_nodes: int) -> str:
    """JSON of a choice: most epochs choose as the one before."""
    numbers = np.frombuffer(choice, dtype=np.int64).reshape(n_levels, -1)
    return chosen_genotype(numbers, operations, n_nodes).to_json()
