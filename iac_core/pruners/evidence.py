"""How much evidence against an operation is more than noise gives."""

import math


def evidence_bound(n_edges: int, n_operations: int, n_looks: int, error: float = 0.05) -> float:
    """Return x = √(2 ln(2 · edges · operations · looks / error)).

    A standard normal variable exceeds x in size with probability at most 2 exp(−x²/2). By the
    union bound none of the statistics of all edges, operations and looks exceeds x under noise,
    with probability at least 1 − error.

    Args:
        n_edges: Edges that are tested.
        n_operations: Operations of an edge.
        n_looks: Times that each is tested.
        error: Probability that anything exceeds the bound under noise.

    Examples:
        >>> round(evidence_bound(14, 8, 8), 1)
        4.6
    """
    return math.sqrt(2 * math.log(2 * n_edges * n_operations * n_looks / error))
